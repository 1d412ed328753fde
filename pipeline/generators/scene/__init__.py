"""The embedded renderer: draws what a prompt's checks say, with errors made on purpose and recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ItemError
from pipeline.generators.base import GeneratorSpec, Rendered, Request, each
from pipeline.generators.scene import objects, portrait, sign
from pipeline.generators.scene.brush import Canvas
from pipeline.generators.scene.damage import DAMAGES
from pipeline.generators.scene.defects import PROFILES, Profile, draw_defects
from pipeline.records import Checks, Defect, Prompt
from pipeline.storage import Store

Draw = Callable[
    [Request, tuple[Defect, ...], np.random.Generator, np.random.Generator],
    tuple[Canvas, tuple[Defect, ...]],
]


@dataclass(frozen=True, slots=True)
class _Painter:
    """``draw`` a picture with the ``kinds`` of content defect that given checks make possible."""

    draw: Draw
    kinds: Callable[[Checks], frozenset[str]]


_PAINTERS = {
    "aesthetics": _Painter(objects.draw_aesthetics, objects.aesthetics_kinds),
    "alignment": _Painter(objects.draw_alignment, objects.alignment_kinds),
    "text_rendering": _Painter(sign.draw, sign.kinds),
    "portrait": _Painter(portrait.draw, portrait.kinds),
    "composition": _Painter(objects.draw_composition, objects.composition_kinds),
}


class SceneGenerator:
    """A variant of the renderer; ``spec.options["profile"]`` names its errors."""

    def __init__(self, spec: GeneratorSpec) -> None:
        self._profile: Profile = PROFILES[str(spec.options["profile"])]

    def open(self, store: Store) -> None:
        """Nothing to load."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Rendered | ItemError]:
        """Yield one result per request, each from its own seed alone."""
        return each(requests, self._render)

    def close(self) -> None:
        """Nothing to free."""

    def _render(self, request: Request) -> Rendered:
        if request.size.fps:
            # Here, because images need no video code.
            from pipeline.generators.scene import video

            return video.render(request, self._profile)
        return picture(request, self._profile)


def picture(request: Request, profile: Profile) -> Rendered:
    """Draw one image with the errors that ``profile`` draws. Raises ItemError."""
    # Two streams: with the same seed, a flawed picture is the flawless one plus its defects.
    looks, errors = np.random.Generator(np.random.PCG64(request.seed)).spawn(2)
    painter = _painter(request.prompt)
    wanted = draw_defects(errors, profile, request.prompt.category, painter.kinds(request.prompt.checks))
    canvas, done = painter.draw(request, wanted, looks, errors)
    by_kind = {defect.kind: defect for defect in wanted}
    for kind, damage in DAMAGES.items():
        if kind in by_kind:
            canvas = damage(errors, canvas, by_kind[kind].severity)
            done = (*done, by_kind[kind])
    return Rendered(frames=canvas[None], defects=done)


def _painter(prompt: Prompt) -> _Painter:
    """Return the painter of the prompt's category; a category of the user's own goes by its checks."""
    if prompt.category in _PAINTERS:
        return _PAINTERS[prompt.category]
    if prompt.checks.text:
        return _PAINTERS["text_rendering"]
    return _PAINTERS["alignment" if prompt.checks.objects else "aesthetics"]
