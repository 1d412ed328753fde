"""What every generator is to the rest of the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pipeline.config import Size
from pipeline.errors import ItemError, StorageError, WorkerError
from pipeline.media.frames import Frames
from pipeline.records import Defect, LicenceProfile, Modality, Prompt
from pipeline.storage import Store
from pipeline.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSpec:
    """A row of the table of generators; every field that changes pixels is part of its id.

    ``starts_from`` says what a request brings as its source: nothing, an image (image-to-video), or a
    generation of the row's own modality (a degrading generator). ``frames`` and ``fps`` are a video
    model's own (0: what the category asks for), ``multiple`` the step of its sides in pixels.
    ``dollars`` is what one item costs at a remote service.
    """

    name: str
    family: str
    modality: Modality
    licence: str
    licence_profile: LicenceProfile
    weights: Weights | None = None
    starts_from: Literal["nothing", "image", "own"] = "nothing"
    gpus: float = 0.0
    batch: int = 1
    seconds: float = 0.5  # rated seconds an item, for `plan` before anything is measured
    frames: int = 0
    fps: int = 0
    multiple: int = 1
    dollars: float = 0.0
    options: Mapping[str, float | str] = field(default_factory=dict)

    def size(self, asked: Size) -> Size:
        """Return what this generator makes where a category asks for ``asked``."""
        return Size(
            width=asked.width - asked.width % self.multiple,
            height=asked.height - asked.height % self.multiple,
            frames=1 if self.modality == "image" else self.frames or asked.frames,
            fps=0 if self.modality == "image" else self.fps or asked.fps,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One item to render; ``id`` is that of the generation. Equal requests to equal specs give equal frames.

    ``source`` is what the item starts from, where the spec says so: one frame, or a whole video.
    """

    id: str
    prompt: Prompt
    seed: int
    size: Size
    source: Frames | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The frames of one request. ``defects`` is None unless the generator made them on purpose."""

    frames: Frames
    defects: tuple[Defect, ...] | None = None


class Generator(Protocol):
    """Renders requests. Raises WorkerError when the worker is unfit (lost device, no weights)."""

    def open(self, store: Store) -> None:
        """Load weights; called once in the worker, before the first request. ``store`` is the run's."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Rendered | ItemError]:
        """Yield one result per request, in order; what cannot be rendered is yielded as its error.

        May take several requests before it yields the first result: it batches as it likes.
        """

    def close(self) -> None:
        """Free the device."""


def each(
    requests: Iterable[Request], render: Callable[[Request], Rendered]
) -> Iterator[Rendered | ItemError]:
    """Render one by one: whatever one prompt breaks is that prompt's error, and the rest go on."""
    for request in requests:
        try:
            yield render(request)
        except ItemError as error:
            yield error
        except (WorkerError, StorageError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 see above
            yield ItemError(f"{type(error).__name__}: {error}")
