"""The generator that runs any pipeline of diffusers: batches, what goes wrong, and a GPU that never waits."""

from __future__ import annotations

import gc
import logging
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice

from pipeline.errors import ConfigError, ItemError, StorageError, VipoError, WorkerError
from pipeline.generators.base import GeneratorSpec, Rendered, Request
from pipeline.generators.diffusion.frames import Frames
from pipeline.generators.diffusion.model import Model
from pipeline.generators.diffusion.options import read
from pipeline.storage import Store

AHEAD = 2
"""Batches that are asked for beyond the one that the caller waits for, so that the device has the next."""

Outcome = Frames | ItemError
"""What became of requests that follow each other: the frames of all, or why there are none of one."""


class DiffusionGenerator:
    """Renders with one checkpoint of diffusers; ``options.Options`` describes ``spec.options``.

    Noise is drawn on the CPU from each request's own seed and every prompt is encoded alone, so frames depend
    on their batch by rounding only. Raises ConfigError for wrong options.
    """

    def __init__(self, spec: GeneratorSpec) -> None:
        if spec.weights is None:
            raise ConfigError(f"generator {spec.name}: no weights: add the repository to the row")
        self._name, self._weights, self._options = spec.name, spec.weights, read(spec)
        alone = self._options.cache > 0 or not self._options.family.batchable
        self._most = 1 if alone else spec.batch
        self._model: Model | None = None

    def open(self, store: Store) -> None:
        """Load the weights. Raises WorkerError, or what they raise: model, cause, remedy in one line."""
        del store
        import torch

        _quieten()
        torch.backends.cudnn.deterministic = True
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        where = f"generator {self._name}: {self._weights.repo}"
        try:
            self._model = Model(self._weights, self._options, device)
        except WorkerError as error:
            raise WorkerError(f"{where} {error}") from error
        except VipoError:  # it names the weights
            raise
        except torch.OutOfMemoryError as error:
            gpu = torch.cuda.get_device_name()
            raise WorkerError(
                f"{where} does not fit on {gpu}: use a GPU with more memory, or quantise"
            ) from error
        except Exception as error:
            remedy = "put the weights there anew, or install what infra/constraints.txt pins"
            raise WorkerError(f"{where} cannot be loaded: {_one_line(error)}: {remedy}") from error

    def generate(self, requests: Iterable[Request]) -> Iterator[Rendered | ItemError]:
        """Yield frames or an error for each request, in order; ``AHEAD`` batches are under way meanwhile."""
        if self._model is None:
            raise WorkerError(f"generator {self._name} is not open: call open() before generate()")
        with ThreadPoolExecutor(1, thread_name_prefix="denoise") as device:
            ahead: deque[Future[list[Outcome]]] = deque()
            try:
                for batch in self._batches(requests):
                    ahead.append(device.submit(self._render, self._model, batch))
                    if len(ahead) > AHEAD:
                        yield from self._arrived(ahead.popleft())
                while ahead:
                    yield from self._arrived(ahead.popleft())
            finally:
                for future in ahead:
                    future.cancel()

    def close(self) -> None:
        """Free the device's memory."""
        import torch

        self._model = None
        if torch.cuda.is_available():
            gc.collect()  # what hooks hold on to goes only then
            torch.cuda.empty_cache()

    def _batches(self, requests: Iterable[Request]) -> Iterator[list[Request]]:
        """Yield requests that follow each other and ask for one size, as many as memory is known to hold."""
        for _, run in groupby(requests, key=lambda request: request.size):
            while batch := list(islice(run, self._most)):
                yield batch

    def _arrived(self, future: Future[list[Outcome]]) -> Iterator[Rendered | ItemError]:
        import torch

        try:
            for outcome in future.result():
                yield from [outcome] if isinstance(outcome, ItemError) else outcome.wait()
        except torch.AcceleratorError as error:
            raise self._lost(error) from error

    def _render(self, model: Model, requests: Sequence[Request]) -> list[Outcome]:
        """Render together what can be; what fails together is tried again apart."""
        outcomes: list[Outcome] = []
        todo = deque([list(requests)])
        while todo:
            part = todo.popleft()
            if len(part) > self._most:
                todo.extendleft((part[self._most :], part[: self._most]))
                continue
            made = self._attempt(model, part)
            if not isinstance(made, str):
                outcomes += made
            elif len(part) == 1:
                outcomes.append(ItemError(made))
            elif len(part) > self._most:
                todo.appendleft(part)
            else:
                todo.extendleft([one] for one in reversed(part))
        return outcomes

    def _attempt(self, model: Model, part: Sequence[Request]) -> Sequence[Outcome] | str:
        """Render ``part`` together, or return why that fails, with the device's memory free again."""
        import torch

        try:
            return model.denoise(part)
        except (WorkerError, StorageError, MemoryError):
            raise
        except torch.AcceleratorError as error:
            raise self._lost(error) from error
        except torch.OutOfMemoryError:
            size = part[0].size
            self._most = max(1, len(part) // 2)
            cause = f"{size.width}x{size.height} does not fit in the GPU's memory: try option vae = 'tiling'"
        except ItemError as error:
            cause = str(error)
        except Exception as error:  # noqa: BLE001 whatever one request breaks is that request's error
            cause = _one_line(error)
        model.recover()  # only here does nothing hold on to the failed call's tensors
        return cause

    def _lost(self, error: Exception) -> WorkerError:
        return WorkerError(f"generator {self._name}: the GPU failed ({_one_line(error)}): look at its node")


def _quieten() -> None:
    """Let no library write into the worker's output: a bar a call, a line for each prompt that is cut."""
    for name in ("torchao", "torch.utils._pytree"):  # they warn while they are imported
        logging.getLogger(name).setLevel(logging.ERROR)
    from diffusers.utils import logging as ours
    from transformers.utils import logging as theirs

    for library in (ours, theirs):
        library.set_verbosity_error()
        library.disable_progress_bar()
    warnings.filterwarnings("ignore", module="diffusers|transformers|torch")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
