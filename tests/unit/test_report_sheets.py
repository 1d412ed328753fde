from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from PIL import Image

from pipeline.media.frames import Frames
from pipeline.records import Agreement, Reason
from pipeline.report.sheets import IMAGE_BYTES, VIDEO_BYTES, Picture, Sampler, thumbnail


def noise(seed: int, frames: int, height: int, width: int) -> Frames:
    drawn = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3))
    return drawn.astype(np.uint8)


def agreement(name: str, reason: Reason | None) -> Agreement:
    return Agreement(
        id="agreement of " + name,
        pair_id=name,
        root_id="p",
        category="portrait",
        policy="unanimous",
        kept=reason is None,
        winner_id=None,
        loser_id=None,
        confidence=None,
        reason=reason,
        votes=(),
        bytes=0,
        licence_profile=None,
    )


def sampled(names: Sequence[tuple[str, Reason | None]], sheet: int) -> Sampler:
    sampler = Sampler(sheet)
    for name, reason in names:
        sampler.add(agreement(name, reason))
    return sampler


def test_kept_sheet_takes_the_smallest_ids_in_any_order() -> None:
    for order in permutations("dacb"):
        sampler = sampled([(name, None) for name in order], 2)
        assert [a.pair_id for a in sampler.kept("portrait")] == ["a", "b"]
    assert sampler.kept("unknown") == sampler.dropped("unknown") == []


def test_dropped_sheet_gives_every_reason_its_turn_before_one_gets_two() -> None:
    gold = [(f"g{n}", Reason.GOLD) for n in range(9)]
    conflict = [(f"c{n}", Reason.CONFLICT) for n in range(9)]
    names = [*conflict, *gold, ("t", Reason.TOO_FEW_VOTES)]
    shown = [a.pair_id for a in sampled(names, 6).dropped("portrait")]
    assert shown == ["g0", "g1", "g2", "c0", "c1", "t"]
    assert [a.pair_id for a in sampled(names, 2).dropped("portrait")] == ["g0", "c0"]
    every = [(str(reason), reason) for reason in Reason]
    assert [a.reason for a in sampled(every[::-1], 8).dropped("portrait")] == list(Reason)[:8]


def opened(picture: Picture) -> tuple[Image.Image, int]:
    data = base64.b64decode(picture.uri.partition(",")[2])
    return Image.open(io.BytesIO(data)), len(data)


def test_the_worst_pictures_fit_the_budget_of_the_page() -> None:
    still, still_bytes = opened(thumbnail(noise(1, 1, 1024, 1024), 0))
    film, film_bytes = opened(thumbnail(noise(2, 17, 720, 1280), 16))
    assert (still.format, still.size) == ("JPEG", (256, 256))
    assert (film.format, film.size) == ("WEBP", (720, 405))
    assert still_bytes <= IMAGE_BYTES
    assert film_bytes <= VIDEO_BYTES
    assert 32 * (5 * IMAGE_BYTES + 3 * VIDEO_BYTES) * 4 / 3 < 5_500_000


@pytest.mark.parametrize(("frames", "expected"), [(33, [0, 4, 8, 12, 16, 20, 24, 28, 32]), (2, [0, 1])])
def test_a_video_is_shown_by_nine_frames_from_first_to_last(frames: int, expected: list[int]) -> None:
    levels = np.arange(frames, dtype=np.uint8) * 7
    clip = np.broadcast_to(levels[:, None, None, None], (frames, 72, 128, 3))
    picture = thumbnail(clip, 16)
    grid = np.asarray(opened(picture)[0].convert("L"), dtype=float)
    cells = [grid[y : y + 72, x : x + 128].mean() / 7 for y in (0, 72, 144) for x in (0, 128, 256)]
    assert list(dict.fromkeys(round(cell) for cell in cells)) == expected
    assert picture.seconds == round(frames / 16, 2)


def test_small_pictures_are_not_blown_up() -> None:
    picture = thumbnail(noise(1, 1, 40, 60), 0)
    assert (picture.width, picture.height) == (60, 40)
