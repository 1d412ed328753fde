"""Safety checkers: a real detector, what of its findings counts, and one line where it cannot run."""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from pipeline.errors import ConfigError
from pipeline.generators.safety import (
    CHECKERS,
    NUDENET_POLICY,
    SAMPLES,
    Checker,
    CheckerRow,
    NudeNet,
    make_checker,
    require_checker,
)
from pipeline.media.frames import Frames


@pytest.fixture(scope="module")
def checker() -> Checker:
    pytest.importorskip("nudenet", reason="the extra `safety` is not installed")
    return make_checker("nudenet")


@pytest.fixture(scope="module")
def nude() -> Frames:
    """A bust of ellipses: enough for the detector, harmless to anyone else."""
    picture = Image.new("RGB", (512, 512), (120, 130, 140))
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((136, 60, 376, 511), 60, fill=(222, 178, 150))
    for x in (196, 316):
        draw.ellipse((x - 60, 190, x + 60, 310), fill=(204, 160, 132))
        draw.ellipse((x - 14, 248, x + 14, 276), fill=(160, 92, 84))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(4)))[None]


@pytest.fixture(scope="module")
def landscape() -> Frames:
    rows = np.linspace(0, 1, 512)[:, None, None]
    sky = (1 - rows) * (90, 140, 220) + rows * (60, 120, 50)
    return np.broadcast_to(sky, (512, 512, 3)).astype(np.uint8)[None]


def test_nudity_scores_high_and_a_landscape_nothing(
    checker: Checker, nude: Frames, landscape: Frames
) -> None:
    assert checker.score(nude) > 0.6
    assert checker.score(landscape) == 0.0


def test_what_the_policy_does_not_count_scores_nothing(
    checker: Checker, nude: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The detector also sees a bare belly here, which does not count."""
    monkeypatch.setitem(NUDENET_POLICY, "FEMALE_BREAST_EXPOSED", (False, ""))
    assert checker.score(nude) == 0.0
    monkeypatch.setitem(NUDENET_POLICY, "BELLY_EXPOSED", (True, ""))
    assert checker.score(nude) > 0.25


def test_a_video_scores_as_its_worst_sampled_frame(checker: Checker, nude: Frames, landscape: Frames) -> None:
    video = np.repeat(landscape, 33, axis=0)
    for unsafe in (slice(0, 1), slice(32, 33), slice(14, 14 + 33 // SAMPLES + 1)):  # one is always sampled
        cut = video.copy()
        cut[unsafe] = nude
        assert checker.score(cut) == pytest.approx(checker.score(nude), abs=1e-6)


def test_several_threads_may_ask_at_a_time(checker: Checker, nude: Frames, landscape: Frames) -> None:
    alone = [checker.score(nude), checker.score(landscape)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(checker.score, [nude, landscape] * 2)) == alone * 2


def test_the_policy_names_every_class_of_the_detector_with_a_reason(checker: Checker) -> None:
    assert isinstance(checker, NudeNet)
    labels = vars(importlib.import_module("nudenet.nudenet"))["__labels"]
    assert NUDENET_POLICY.keys() == set(labels)
    assert all(reason for _, reason in NUDENET_POLICY.values())


def test_an_unknown_checker_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'nudnet' is not known: did you mean 'nudenet'"):
        require_checker("nudnet")


def test_a_checker_whose_package_is_absent_is_refused_with_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = CheckerRow(package="a_package_that_nobody_has", extra="safety", make=NudeNet)
    monkeypatch.setitem(CHECKERS, "absent", row)
    with pytest.raises(ConfigError, match=r"needs the package a_package.*pip install 'vipo\[safety\]'"):
        make_checker("absent")
