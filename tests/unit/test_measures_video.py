"""Measures of videos: what each judge sees in encoded and decoded films, and when it abstains."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest

from pipeline import media
from pipeline.config import Rubric, Size
from pipeline.generators.base import Request
from pipeline.generators.scene import video
from pipeline.generators.scene.defects import PROFILES, Profile, Rate
from pipeline.judges.base import Hosting, Media, Question
from pipeline.judges.measures import camera, motion, video_objects, video_quality
from pipeline.judges.table import JUDGES, make_judge
from pipeline.media.frames import Frames
from pipeline.records import Attribute, Checks, MotionCheck, ObjectCheck, Prompt

SIZE = Size(width=640, height=360, frames=17, fps=16)
JUDGED = {
    "motion_quality": ("motion-trajectory", "motion-cadence", "motion-flow"),
    "video_alignment": ("video-pieces", "video-outlines", "video-palette"),
    "visual_quality": ("video-pixels", "video-spectrum", "video-patches"),
}
MEASURES = (
    motion.trajectory, motion.cadence, motion.flow,
    video_objects.pieces, video_objects.outlines, video_objects.palette,
    video_quality.pixels, video_quality.spectrum, video_quality.patches,
)  # fmt: skip


def checks(move: str = "static", direction: str = "right") -> Checks:
    return Checks(
        objects=(ObjectCheck(name="heart", count=2, colour="red"),),
        motions=(MotionCheck(object=0, direction=direction, camera=move),),  # type: ignore[arg-type]
        attributes=(Attribute(name="light", value="overcast"), Attribute(name="place", value="a forest")),
    )


@cache
def shot(category: str, kind: str | None, severity: float, seed: int, asked: Checks) -> media.Encoded:
    """Film, encode."""
    rates = {kind: Rate(probability=1.0, low=severity, high=severity)} if kind else {}
    prompt = Prompt(
        id="p", root_id="p", category=category, bucket=0, text="t", subject="heart", style="s",
        checks=asked, source="test", licence="CC0-1.0",
    )  # fmt: skip
    request = Request(id="r", prompt=prompt, seed=seed, size=SIZE)
    return media.encode(video.render(request, Profile(name="one", rates=rates)).frames, SIZE.fps)


def votes(category: str, first: media.Encoded, second: media.Encoded, asked: Checks) -> list[str]:
    """Return each judge's choice, after checking that the swapped order gives the same."""
    a, b = (Media(sha256=one.sha256, mime=one.mime, data=one.data) for one in (first, second))
    found: list[str] = []
    for name in JUDGED[category]:
        judge = make_judge(JUDGES[name], Hosting())
        judge.open()
        rubric = Rubric(question="?", criteria=())
        there, back = judge.ask(
            [Question(id="q", prompt="t", checks=asked, rubric=rubric, a=x, b=y) for x, y in ((a, b), (b, a))]
        )
        assert (there.choice, back.choice) in {("a", "b"), ("b", "a"), ("tie", "tie")}
        found.append(there.choice)
        judge.close()
    return found


DEFECTS = [
    *product(["motion_quality"], ["jitter", "teleport", "freeze", "ghosting"]),
    *product(["video_alignment"], ["wrong_count", "wrong_colour", "wrong_object"]),
    *product(["video_alignment"], ["wrong_direction", "wrong_camera"]),
    *product(["visual_quality"], ["noise", "blur", "blocking", "bad_exposure", "flicker"]),
]


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))])
@pytest.mark.parametrize(("category", "kind"), DEFECTS)
def test_two_judges_prefer_the_flawless_video_and_none_the_other(category: str, kind: str, seed: int) -> None:
    asked = checks()
    found = votes(
        category, shot(category, None, 0, seed, asked), shot(category, kind, 0.9, seed, asked), asked
    )
    assert found.count("a") >= 2
    assert "b" not in found


@pytest.mark.parametrize("category", JUDGED)
def test_two_flawless_videos_are_a_tie(category: str) -> None:
    asked = checks()
    found = votes(category, shot(category, None, 0, 1, asked), shot(category, None, 0, 2, asked), asked)
    assert found.count("tie") >= 2


@pytest.mark.parametrize(
    ("measure", "category", "kind"),
    [
        (motion.trajectory, "motion_quality", "jitter"),
        (motion.trajectory, "motion_quality", "teleport"),
        (motion.cadence, "motion_quality", "freeze"),
        (motion.flow, "motion_quality", "jitter"),
        (video_quality.pixels, "visual_quality", "blur"),
        (video_quality.spectrum, "visual_quality", "noise"),
        (video_quality.patches, "visual_quality", "flicker"),
    ],
)
def test_scores_fall_with_severity(measure: object, category: str, kind: str) -> None:
    assert callable(measure)
    asked = checks()
    films = [shot(category, kind if severity else None, severity, 1, asked) for severity in (0, 0.4, 1.0)]
    clean, mild, severe = (measure(media.decode(one.data, one.mime), asked) for one in films)
    assert clean > mild > severe


@pytest.mark.parametrize("move", ["static", "pan left", "pan right", "zoom in", "zoom out"])
@pytest.mark.parametrize("estimate", [camera.by_features, camera.by_overlap])
def test_camera_moves_are_told_apart(move: str, estimate: camera.Estimate) -> None:
    encoded = shot("motion_quality", None, 0, 1, checks(move))
    small = camera.shrunk(media.decode(encoded.data, encoded.mime), (0, 4, 8, 12, 16))
    moves = camera.track(small, estimate)
    if estimate is camera.by_features and moves is None:
        return  # too little to hold on to: said, not guessed
    assert moves is not None
    shift = {"pan left": 0.1, "pan right": -0.1}.get(move, 0.0)
    zoom = {"zoom in": 1.25, "zoom out": 0.8}.get(move, 1.0)
    assert moves[-1].x == pytest.approx(shift, abs=0.04)
    assert moves[-1].zoom == pytest.approx(zoom, abs=0.06)


def test_moves_compose() -> None:
    first, second = camera.Move(0.1, 0.02, 1.2), camera.Move(-0.05, 0.0, 0.9)
    whole = first.then(second)
    again = camera.between(first, whole)
    assert (again.x, again.y, again.zoom) == pytest.approx((second.x, second.y, second.zoom))


def test_what_cannot_be_measured_is_none() -> None:
    grey: Frames = np.full((9, 180, 320, 3), 128, np.uint8)
    for measure in (motion.trajectory, motion.cadence, motion.flow):
        assert measure(grey, checks()) is None
        assert measure(grey[:3], checks()) is None
    for measure in (video_objects.pieces, video_objects.outlines, video_objects.palette):
        assert measure(grey, Checks()) is None
        assert measure(grey, Checks(objects=(ObjectCheck(name="dodo", count=1, colour="red"),))) is None
    for measure in (video_quality.pixels, video_quality.spectrum, video_quality.patches):
        assert measure(grey[:, :32, :32], checks()) is None


def test_measures_take_any_film_without_content() -> None:
    rng = np.random.default_rng(0)
    for film in (np.zeros((8, 180, 320, 3), np.uint8), rng.integers(0, 256, (8, 180, 320, 3), np.uint8)):
        for measure in MEASURES:
            score = measure(film, checks("zoom in"))
            assert score is None or np.isfinite(score)


def test_flawless_is_flawless_to_all() -> None:
    assert PROFILES["flawless"].rates == {}
    for category in JUDGED:
        encoded = shot(category, None, 0, 1, checks())
        frames = media.decode(encoded.data, encoded.mime)
        for name in JUDGED[category]:
            module, _, function = str(JUDGES[name].options["measure"]).partition(":")
            measure = getattr(
                {"motion": motion, "video_objects": video_objects, "video_quality": video_quality}[module],
                function,
            )
            assert measure(frames, checks()) > -0.2
