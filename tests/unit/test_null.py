"""The null generator and the null judge: real frames and verdicts, no meaning, a GPU's time."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from pipeline import media
from pipeline.config import Rubric, Size
from pipeline.generators.base import GeneratorSpec, Rendered, Request
from pipeline.generators.null import NullGenerator
from pipeline.generators.table import GENERATORS
from pipeline.judges.base import Hosting, Media, Question
from pipeline.judges.table import JUDGES, make_judge
from pipeline.media.flaws import flaw
from pipeline.media.frames import Frames
from pipeline.records import Checks, Prompt

PROMPT = Prompt(
    id="0" * 32, root_id="0" * 32, category="alignment", bucket=0, text="any", subject="s", style="y",
    checks=Checks(), source="test", licence="CC0-1.0",
)  # fmt: skip
IMAGE, VIDEO = Size(width=96, height=64), Size(width=96, height=64, frames=9, fps=16)

both = pytest.mark.parametrize("noise", [0, 1])


def null(noise: int, seconds: float = 0.0) -> NullGenerator:
    return NullGenerator(
        GeneratorSpec(
            name="null/any", family="null", modality="image", licence="Apache-2.0",
            licence_profile="permissive", options={"seconds": seconds, "noise": noise, "version": 1},
        )
    )  # fmt: skip


def frames(noise: int, size: Size, *seeds: int, seconds: float = 0.0) -> list[Frames]:
    requests = [Request(id=str(seed), prompt=PROMPT, seed=seed, size=size) for seed in seeds]
    made = list(null(noise, seconds).generate(requests))
    return [each.frames for each in made if isinstance(each, Rendered)]


@both
@pytest.mark.parametrize("size", [IMAGE, VIDEO])
def test_frames_have_the_size_asked_for_and_encode(noise: int, size: Size) -> None:
    (made,) = frames(noise, size, 2**62 + 1)
    assert made.shape == (size.frames, 64, 96, 3)
    assert made.dtype == np.uint8
    assert media.encode(made, size.fps).probe.frames == size.frames


@both
@pytest.mark.parametrize("size", [IMAGE, VIDEO])
def test_media_differ_by_seed_pass_the_check_for_useless_ones_and_repeat(noise: int, size: Size) -> None:
    made = frames(noise, size, *range(60))
    assert len({hashlib.sha256(each.tobytes()).digest() for each in made}) == 60
    assert all(flaw(each) is None for each in made)
    assert all(np.array_equal(*pair) for pair in zip(made, frames(noise, size, *range(60)), strict=True))


def test_noise_weighs_as_much_as_a_photograph() -> None:
    (noisy,) = frames(1, Size(width=1024, height=1024), 1)
    (plain,) = frames(0, Size(width=1024, height=1024), 1)
    assert 400_000 < len(media.encode(noisy, 0).data) < 500_000
    assert len(media.encode(plain, 0).data) < 80_000


def test_an_item_takes_at_least_its_seconds_and_leaves_the_processor_to_others() -> None:
    counted, stop = 0, threading.Event()

    def count() -> None:
        nonlocal counted
        while not stop.is_set():
            counted += 1

    with ThreadPoolExecutor(1) as threads:
        threads.submit(count)
        start, used = time.perf_counter(), time.thread_time()
        assert len(frames(0, IMAGE, 1, 2, 3, seconds=0.03)) == 3
        stop.set()
    assert time.perf_counter() - start >= 0.09
    assert time.thread_time() - used < 0.09
    assert counted > 1000


def test_few_pictures_are_shared_by_all_seeds() -> None:
    spec = replace(GENERATORS["null/quick"], options={"seconds": 0.0, "noise": 0.0, "pictures": 3})
    requests = (Request(id=str(seed), prompt=PROMPT, seed=seed, size=IMAGE) for seed in range(30))
    made = NullGenerator(spec).generate(requests)
    assert len({each.frames.tobytes() for each in made if isinstance(each, Rendered)}) == 3


def question(prompt: str, a: bytes, b: bytes) -> Question:
    sides = [Media(sha256=hashlib.sha256(data).hexdigest(), mime="image/jpeg", data=data) for data in (a, b)]
    rubric = Rubric(question="?", criteria=("none",))
    return Question(id="0", prompt=prompt, checks=Checks(), rubric=rubric, a=sides[0], b=sides[1])


@pytest.mark.parametrize("agree", [0.0, 0.7, 1.0])
def test_a_null_judge_votes_for_more_bytes_or_goes_by_position(agree: float) -> None:
    judge = make_judge(replace(JUDGES["null/quick"], options={"agree": agree, "seconds": 0.0}), Hosting())
    forward = [question(str(number), b"long", b"short ") for number in range(1000)]
    swapped = [question(str(number), b"short ", b"long") for number in range(1000)]
    answers = list(zip(judge.ask(forward), judge.ask(swapped), strict=True))
    said = Counter((one.choice, other.choice) for one, other in answers)
    assert said.keys() <= {("b", "a"), ("a", "a")}
    assert said["b", "a"] / 1000 == pytest.approx(agree, abs=0.05)
    assert answers == list(zip(judge.ask(forward), judge.ask(swapped), strict=True))


def test_null_judges_draw_apart() -> None:
    asked = [question(str(number), b"long", b"short ") for number in range(200)]
    rows = (replace(JUDGES["null/quick"], name=name) for name in ("null/one", "null/two"))
    one, two = ([answer.choice for answer in make_judge(row, Hosting()).ask(asked)] for row in rows)
    assert one != two
