"""What the suites over pipeline classes share: each class with its tiny checkpoint, requests, comparisons."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config import Pin, Size
from pipeline.errors import ItemError
from pipeline.generators.base import GeneratorSpec, Rendered, Request
from pipeline.ids import content_id
from pipeline.media.frames import Frames
from pipeline.records import Checks, Prompt
from pipeline.weights import Weights, pin
from tests.weights import tiny

SHORT = "a red cat"
LONG = "a painting of two people sitting on a wooden table next to a grey house under a small tree at night"
TOLERANCE = 1
"""Most that a byte of a frame differs, in float32, when a request is rendered with others or alone."""

IMAGE = Size(width=128, height=96)
VIDEO = Size(width=128, height=96, frames=5, fps=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One pipeline class and the checkpoint that it loads.

    ``negatives``: the pipeline encodes the negative prompt itself, in every call. ``mends``: it replaces what
    is no text, and so reads every prompt.
    """

    checkpoint: str
    pipeline: str
    size: Size = IMAGE
    from_image: bool = False
    negatives: bool = False
    mends: bool = False
    options: Mapping[str, float | str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.checkpoint}-{self.pipeline.removesuffix('Pipeline')}"

    def spec(self, **options: float | str) -> GeneratorSpec:
        return GeneratorSpec(
            name=f"tiny/{self.checkpoint}",
            family="diffusion",
            modality="video" if self.size.fps else "image",
            licence="Apache-2.0",
            licence_profile="permissive",
            weights=tiny(self.checkpoint),
            starts_from="image" if self.from_image else "nothing",
            batch=3,
            options={"pipeline": self.pipeline, "steps": 2, "dtype": "float32", **self.options, **options},
        )

    def requests(self) -> list[Request]:
        """Return a batch: two prompts of unlike length, and two seeds of one of them."""
        return [self.request(SHORT, 1), self.request(LONG, 1), self.request(LONG, 2)]

    def request(self, text: str, seed: int, *, source: int = 0, size: Size | None = None) -> Request:
        size = size or self.size
        noise = np.random.default_rng(source).integers(0, 256, (1, size.height, size.width, 3), np.uint8)
        name = content_id("prompt", text=repr(text))
        prompt = Prompt(
            id=name,
            root_id=name,
            category="aesthetics",
            bucket=0,
            text=text,
            subject="cat",
            style="painting",
            checks=Checks(),
            source="test",
            licence="CC0-1.0",
        )
        return Request(
            id=content_id("generation", prompt=name, seed=seed, source=source),
            prompt=prompt,
            seed=seed,
            size=size,
            source=noise if self.from_image else None,
        )


CASES = (
    Case(checkpoint="flux", pipeline="FluxPipeline"),
    Case(checkpoint="flux2", pipeline="Flux2Pipeline"),
    Case(checkpoint="flux2_klein", pipeline="Flux2KleinPipeline"),
    Case(checkpoint="qwenimage", pipeline="QwenImagePipeline"),
    Case(
        checkpoint="hidream",
        pipeline="HiDreamImagePipeline",
        size=Size(width=1024, height=1024),
        options={"steps": 1, "guidance": 1.0},
    ),
    Case(checkpoint="sd15", pipeline="StableDiffusionPipeline"),
    Case(checkpoint="sdxl", pipeline="StableDiffusionXLPipeline"),
    Case(checkpoint="sd3", pipeline="StableDiffusion3Pipeline"),
    *(
        Case(checkpoint=name, pipeline=pipeline, options={"steps": 1, "guidance": 1.0})
        for name, pipeline in (("sana", "SanaPipeline"), ("pixart_sigma", "PixArtSigmaPipeline"))
    ),
    Case(checkpoint="zimage", pipeline="ZImagePipeline"),
    Case(checkpoint="hunyuan_image", pipeline="HunyuanImagePipeline", negatives=True),
    Case(checkpoint="chroma", pipeline="ChromaPipeline"),
    Case(checkpoint="krea2", pipeline="Krea2Pipeline"),
    Case(checkpoint="wan", pipeline="WanPipeline", size=VIDEO, mends=True),
    Case(
        checkpoint="wan22",
        pipeline="WanPipeline",
        size=VIDEO,
        mends=True,
        options={"steps": 4, "guidance_2": 3.0},  # enough for both transformers to have some
    ),
    Case(checkpoint="wan22_5b", pipeline="WanPipeline", size=VIDEO, mends=True),
    *(
        Case(checkpoint=name, pipeline="WanImageToVideoPipeline", size=VIDEO, from_image=True, mends=True)
        for name in ("wan_i2v", "wan22_5b")
    ),
    Case(checkpoint="ltx", pipeline="LTXPipeline", size=replace(VIDEO, frames=9)),
    Case(
        checkpoint="ltx",
        pipeline="LTXImageToVideoPipeline",
        size=replace(VIDEO, frames=9),
        from_image=True,
    ),
    Case(checkpoint="hunyuan_video", pipeline="HunyuanVideoPipeline", size=VIDEO),
)
FLUX, QWEN, HIDREAM = CASES[0], CASES[3], CASES[4]
FROM_IMAGE = [case for case in CASES if case.from_image]
VIDEOS = [case for case in CASES if case.size.fps]


@contextmanager
def one_thread() -> Iterator[None]:
    """Leave the other cores to other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def frames(results: Iterable[Rendered | ItemError]) -> list[Frames]:
    made = []
    for result in results:
        assert isinstance(result, Rendered), result
        made.append(result.frames)
    return made


def difference(a: Frames, b: Frames) -> NDArray[np.int16]:
    return np.abs(a.astype(np.int16) - b.astype(np.int16))


def altered(case: Case, folder: Path) -> GeneratorSpec:
    """Return the case's spec over a copy of its weights in ``folder``, to be changed there."""
    spec = case.spec()
    assert spec.weights
    copied = []
    for weights in filter(None, (spec.weights, spec.weights.borrowed)):
        shutil.copytree(Path(str(weights.root)) / weights.repo, folder / weights.repo)
        copied.append(replace(weights, root=str(folder)))
    return replace(spec, weights=replace(copied[0], borrowed=copied[1] if copied[1:] else None))


def repinned(spec: GeneratorSpec) -> GeneratorSpec:
    """Return ``spec`` with the revision that its folder holds now, or the old one where that has none."""

    def again(weights: Weights | None) -> Weights | None:
        if weights is None:
            return None
        (made,) = pin([weights.repo], weights.root)
        revision = made.revision if isinstance(made, Pin) else weights.revision
        return replace(weights, revision=revision, borrowed=again(weights.borrowed))

    return replace(spec, weights=again(spec.weights))
