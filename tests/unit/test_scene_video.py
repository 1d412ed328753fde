"""The embedded renderer's videos: right where they say so, wrong where they say so."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import Size
from pipeline.errors import ItemError
from pipeline.generators.base import Rendered, Request
from pipeline.generators.scene import video
from pipeline.generators.scene.defects import PROFILES, Profile, Rate, harm, kinds_of
from pipeline.media.symbols import COLOURS
from pipeline.records import Attribute, Checks, MotionCheck, ObjectCheck, Prompt, RelationCheck

CATEGORIES = ("motion_quality", "video_alignment", "visual_quality")
KINDS = [(category, kind) for category in CATEGORIES for kind in kinds_of(category)]
SMALL = Size(width=320, height=180, frames=9, fps=16)
FLAWLESS = PROFILES["flawless"]

Points = NDArray[np.float64]


def prompt(
    direction: str = "right", camera: str = "static", category: str = "motion_quality", count: int = 1
) -> Prompt:
    checks = Checks(
        objects=(
            ObjectCheck(name="heart", count=count, colour="red"),
            ObjectCheck(name="star", count=1, colour="blue"),
        ),
        relations=(RelationCheck(subject=0, relation="above", object=1),),
        motions=(MotionCheck(object=0, direction=direction, camera=camera),),  # type: ignore[arg-type]
        attributes=(Attribute(name="light", value="overcast"), Attribute(name="place", value="a forest")),
    )
    return Prompt(
        id="p", root_id="p", category=category, bucket=0, text="t", subject="heart", style="s",
        checks=checks, source="test", licence="CC0-1.0",
    )  # fmt: skip


def film(asked: Prompt, seed: int = 1, profile: Profile = FLAWLESS, size: Size = SMALL) -> Rendered:
    return video.render(Request(id="", prompt=asked, seed=seed, size=size), profile)


def only(kind: str, severity: float) -> Profile:
    return Profile(name="one", rates={kind: Rate(probability=1.0, low=severity, high=severity)})


def middles(rendered: Rendered, colour: str) -> Points:
    """Return where the pixels of a colour lie in each frame, x and y."""
    near = np.abs(rendered.frames.astype(int) - COLOURS[colour]).max(axis=3) < 45
    return np.array([np.argwhere(mask)[:, ::-1].mean(axis=0) for mask in near])


@pytest.mark.parametrize("camera", ["static", "pan left", "pan right", "zoom in", "zoom out"])
@pytest.mark.parametrize(
    ("direction", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)]
)
def test_objects_move_as_asked_whatever_the_camera_does(
    camera: str, direction: str, axis: int, sign: int
) -> None:
    path = middles(film(prompt(direction, camera)), "red")
    assert (sign * np.diff(path[:, axis]) > 0).all()
    assert abs(path[-1] - path[0])[axis] > 2 * abs(path[-1] - path[0])[1 - axis]


def test_still_objects_stay_in_the_world() -> None:
    fixed = middles(film(prompt("still")), "red")
    panned = middles(film(prompt("still", "pan right")), "red")
    assert np.ptp(fixed, axis=0).max() < 1
    assert (np.diff(panned[:, 0]) < 0).all()
    assert np.ptp(panned[:, 1]) < 1


@pytest.mark.parametrize("category", CATEGORIES)
def test_same_request_same_frames_another_seed_others(category: str) -> None:
    asked = prompt(category=category)
    first, again = (film(asked, 3, PROFILES["flawed"]) for _ in range(2))
    assert (first.frames == again.frames).all()
    assert first.defects == again.defects
    assert (film(asked, 4).frames != film(asked, 5).frames).any()


@pytest.mark.parametrize("size", [SMALL, Size(width=640, height=360, frames=17, fps=8)])
def test_frames_have_the_size_asked_for(size: Size) -> None:
    assert film(prompt(camera="zoom in"), size=size).frames.shape == (size.frames, size.height, size.width, 3)


@pytest.mark.parametrize(("category", "kind"), KINDS)
def test_every_defect_changes_what_is_seen_and_is_recorded(category: str, kind: str) -> None:
    asked = prompt(category=category, count=2)
    clean, wrong = film(asked), film(asked, profile=only(kind, 1.0))
    assert clean.defects == ()
    assert [defect.kind for defect in wrong.defects or ()] == [kind]
    assert 0 < harm(category, wrong.defects or ()) <= 1
    assert np.abs(clean.frames.astype(int) - wrong.frames).mean() > 0.3


@pytest.mark.parametrize("kind", ["jitter", "teleport", "ghosting", "noise", "blur", "flicker"])
def test_a_severe_defect_changes_more_than_a_mild_one(kind: str) -> None:
    category = "visual_quality" if kind in kinds_of("visual_quality") else "motion_quality"
    asked = prompt(category=category)
    mild, severe = (
        np.abs(film(asked).frames.astype(int) - film(asked, profile=only(kind, severity)).frames).mean()
        for severity in (0.25, 1.0)
    )
    assert severe > mild > 0


def test_wrong_direction_turns_the_way_by_its_severity() -> None:
    asked = prompt(category="video_alignment")
    path = middles(film(asked, profile=only("wrong_direction", 1.0)), "red")
    assert path[-1, 0] < path[0, 0]
    path = middles(film(asked, profile=only("wrong_direction", 0.5)), "red")
    assert abs(path[-1, 1] - path[0, 1]) > 3 * abs(path[-1, 0] - path[0, 0])


def test_swapped_relation_swaps_places() -> None:
    asked = prompt(category="video_alignment")
    for profile, above in ((FLAWLESS, True), (only("swapped_relation", 1.0), False)):
        shown = film(asked, profile=profile)
        assert bool(middles(shown, "red")[4, 1] < middles(shown, "blue")[4, 1]) is above


def test_a_freeze_repeats_frames_and_only_a_freeze_does() -> None:
    def repeated(rendered: Rendered) -> int:
        frames = rendered.frames
        return sum(bool((frames[i] == frames[i + 1]).all()) for i in range(len(frames) - 1))

    assert repeated(film(prompt())) == 0
    assert repeated(film(prompt(), profile=only("freeze", 1.0))) == 4


def test_what_cannot_show_is_neither_drawn_nor_recorded() -> None:
    for seed in range(12):
        wrong = film(prompt("still"), seed, PROFILES["flawed"]).defects or ()
        assert {defect.kind for defect in wrong} <= {"jitter", "teleport"}
        assert wrong


@pytest.mark.parametrize("seed", range(6))
def test_counts_fit_the_frame_at_every_camera(seed: int) -> None:
    rendered = film(prompt("left", "zoom out", count=5), seed)
    near = np.abs(rendered.frames.astype(int) - COLOURS["red"]).max(axis=3) < 45
    assert not near[:, [0, -1]].any()
    assert not near[:, :, [0, -1]].any()


def test_a_video_without_what_its_prompt_negates_shows_the_rest() -> None:
    def seen(colour: str) -> bool:
        distance = np.abs(shown.frames.astype(np.int16) - np.array(COLOURS[colour], np.int16)).max(axis=-1)
        return bool((distance < 40).any())

    shown = film(prompt(count=0))
    assert (seen("red"), seen("blue")) == (False, True)


def test_impossible_counts_are_refused_with_a_reason() -> None:
    with pytest.raises(ItemError, match="counts"):
        film(prompt(count=99))
