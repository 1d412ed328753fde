"""Degrading generators: each copy is worse in the one way that is recorded, or is none."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pipeline.config import Size
from pipeline.errors import ItemError
from pipeline.generators.base import GeneratorSpec, Rendered, Request
from pipeline.generators.degrade import KINDS, DegradeGenerator
from pipeline.media.frames import Frames
from pipeline.records import Checks, Defect, Prompt

TEMPORAL = ("stutter", "shuffle", "flicker", "ghosting", "freeze")
SEEDS = st.integers(0, 2**63 - 1)
PROMPT = Prompt(
    id="0" * 32, root_id="0" * 32, category="alignment", bucket=0, text="any", subject="s", style="y",
    checks=Checks(), source="test", licence="CC0-1.0",
)  # fmt: skip

every_kind = pytest.mark.parametrize("kind", KINDS)
spatial = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in TEMPORAL])


@cache
def photo(height: int = 192, width: int = 256) -> Frames:
    """A smooth picture with fine texture, edges and a wide range of tones, as [1, height, width, 3]."""
    rng = np.random.default_rng(7)
    ground = Image.fromarray(rng.integers(20, 220, (6, 8, 3), np.uint8))
    picture = ground.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for index in range(12):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        colour = tuple(int(value) for value in rng.integers(0, 255, 3))
        draw.ellipse((x, y, x + 10 + 3 * index, y + 34 - index), fill=colour, outline=(20, 20, 20))
    texture = rng.normal(0, 4, (height, width, 1))
    return np.clip(np.asarray(picture) + texture, 0, 255).astype(np.uint8)[None]


@cache
def footage(count: int = 17) -> Frames:
    """The camera moves over a photo, two pixels a frame."""
    wide = photo(192, 256 + 2 * count)
    return np.concatenate([wide[:, :, 2 * index : 2 * index + 256] for index in range(count)])


def source_of(kind: str) -> Frames:
    return footage() if kind in TEMPORAL else photo()


def degrade(
    kind: str, source: Frames | None, *seeds: int, weakest: float = 0.3
) -> list[Rendered | ItemError]:
    spec = GeneratorSpec(
        name=f"degrade/{kind}", family="degrade", modality="image", licence="Apache-2.0",
        licence_profile="permissive", starts_from="own",
        options={"kind": kind, "weakest": weakest, "strongest": 1.0, "version": 1},
    )  # fmt: skip
    size = Size(width=256, height=192)
    requests = [Request(id=str(s), prompt=PROMPT, seed=s, size=size, source=source) for s in seeds]
    return list(DegradeGenerator(spec).generate(requests))


def copy_of(kind: str, source: Frames, seed: int, weakest: float = 0.3) -> Rendered:
    (result,) = degrade(kind, source, seed, weakest=weakest)
    assert isinstance(result, Rendered), result
    return result


def error(before: Frames, after: Frames) -> float:
    return float(np.sqrt(np.mean((before.astype(np.float64) - after) ** 2)))


@every_kind
@given(seed=SEEDS)
@settings(max_examples=8, deadline=None)
def test_a_copy_is_the_same_for_the_same_seed_and_records_the_one_thing_done(kind: str, seed: int) -> None:
    source = source_of(kind)
    before = source.copy()
    one, other = copy_of(kind, source, seed), copy_of(kind, source, seed)
    assert np.array_equal(one.frames, other.frames)
    assert np.array_equal(source, before)
    assert (one.frames.shape, one.frames.dtype) == (source.shape, source.dtype)
    assert one.defects is not None
    ((defect),) = one.defects
    assert defect.kind == kind
    assert 0.3 <= defect.severity <= 1.0
    assert error(source, one.frames) > 1.0


@every_kind
def test_a_copy_does_not_depend_on_its_neighbours(kind: str) -> None:
    together = degrade(kind, source_of(kind), 1, 2, 3)
    for seed, result in zip((1, 2, 3), together, strict=True):
        assert isinstance(result, Rendered)
        assert np.array_equal(result.frames, copy_of(kind, source_of(kind), seed).frames)


@every_kind
def test_strength_is_drawn_over_the_whole_range(kind: str) -> None:
    drawn = [copy_of(kind, source_of(kind), seed).defects for seed in range(12)]
    severities = [defects[0].severity for defects in drawn if defects]
    assert min(severities) < 0.5 < 0.8 < max(severities)


@every_kind
def test_a_stronger_copy_is_further_from_its_source(kind: str) -> None:
    source = footage() if kind in TEMPORAL else photo(512, 640)

    def changed(strength: float) -> float:
        made = [KINDS[kind](np.random.default_rng(seed), source, strength) for seed in range(4)]
        return float(np.mean([error(source, frames) for frames in made]))

    assert changed(0.3) < changed(0.65) < changed(1.0)


@spatial
def test_a_degraded_video_is_degraded_in_every_frame_of_it(kind: str) -> None:
    frames = copy_of(kind, footage(), 5).frames
    assert frames.shape == footage().shape
    assert all(error(footage()[index], frames[index]) > 1.0 for index in range(len(frames)))


@pytest.mark.parametrize("kind", ["stutter", "freeze", "shuffle"])
def test_frames_are_dropped_repeated_or_moved_and_never_changed(kind: str) -> None:
    source = footage()
    shown = []
    for frame in copy_of(kind, source, 3).frames:
        (index,) = [i for i in range(len(source)) if np.array_equal(source[i], frame)]
        shown.append(index)
    if kind == "shuffle":
        assert sorted(shown) == list(range(len(source)))
        assert max(abs(place - index) for place, index in enumerate(shown)) <= 6
    else:
        assert shown == sorted(shown)
        assert all(index <= place for place, index in enumerate(shown))
    assert shown != list(range(len(source)))


def test_a_freeze_is_one_and_long_and_stutter_many_and_short() -> None:
    def holds(kind: str) -> list[int]:
        frames = copy_of(kind, footage(33), 4).frames
        same = "".join("=" if np.array_equal(a, b) else "/" for a, b in itertools.pairwise(frames))
        return [len(run) + 1 for run in same.split("/") if run]

    (freeze,) = holds("freeze")
    assert freeze >= 0.35 * 33
    assert len(holds("stutter")) >= 3
    assert max(holds("stutter")) <= 8


@pytest.mark.parametrize("kind", ["stutter", "shuffle", "ghosting", "freeze"])
def test_what_cannot_show_where_nothing_moves_is_an_error_and_no_loser(kind: str) -> None:
    still = np.repeat(photo(), 9, axis=0)
    (result,) = degrade(kind, still, 1)
    assert isinstance(result, ItemError)
    assert str(result) == f"{kind} does not show on this source"


@pytest.mark.parametrize("kind", ["overexposure", "blur", "smear", "pixelation"])
def test_a_blank_page_cannot_be_made_worse(kind: str) -> None:
    (result,) = degrade(kind, np.full((1, 64, 64, 3), 255, np.uint8), 1)
    assert isinstance(result, ItemError)


def test_a_degradation_too_weak_to_show_is_made_as_strong_as_the_row_allows() -> None:
    plain = np.full((1, 128, 128, 3), 128, np.uint8)
    plain[:, 40:88, 40:88] += 90
    weak = copy_of("blur", plain, 1, weakest=0.01)
    assert weak.defects == (Defect(kind="blur", severity=1.0),)


@every_kind
def test_an_item_without_source_is_an_error_and_the_next_goes_on(kind: str) -> None:
    (result,) = degrade(kind, None, 1)
    assert isinstance(result, ItemError)
    assert "needs a source" in str(result)


@every_kind
@given(count=st.integers(1, 5), height=st.integers(4, 40), width=st.integers(4, 40), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_any_size_is_degraded_or_refused(kind: str, count: int, height: int, width: int, seed: int) -> None:
    source = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
    (result,) = degrade(kind, source, seed)
    assert isinstance(result, ItemError) or result.frames.shape == source.shape
    assert not isinstance(result, ItemError) or str(result) == f"{kind} does not show on this source"
