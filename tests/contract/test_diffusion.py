"""Every pipeline class that diffusers brings keeps the promises of ``generators/base.py``.

Each runs through the one adapter from a tiny checkpoint of its real class (``tests/weights``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from transformers import PreTrainedModel

from pipeline import media
from pipeline.config import Size
from pipeline.errors import ItemError
from pipeline.generators.base import Generator
from pipeline.generators.diffusion import DiffusionGenerator
from pipeline.media.frames import Frames
from pipeline.storage import Store, open_store
from tests.contract.cases import (
    CASES,
    FLUX,
    FROM_IMAGE,
    HIDREAM,
    LONG,
    QWEN,
    SHORT,
    TOLERANCE,
    VIDEOS,
    Case,
    altered,
    difference,
    frames,
    one_thread,
    repinned,
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")]

UNREADABLE = "a sign that says \udcff"
"""No text: half a character, which no tokenizer takes."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    made: Case = request.param
    return made


@pytest.fixture(scope="module")
def generator(case: Case, store: Store) -> Iterator[Generator]:
    made = DiffusionGenerator(case.spec())
    made.open(store)
    yield made
    made.close()


@pytest.fixture(scope="module")
def together(case: Case, generator: Generator) -> list[Frames]:
    """Return what ``case.requests`` become in one batch."""
    return frames(generator.generate(case.requests()))


def test_every_request_gets_frames_of_its_size_which_prompt_and_seed_decide(
    case: Case, together: list[Frames]
) -> None:
    for made in together:
        assert made.dtype == np.uint8
        assert made.shape == (case.size.frames, case.size.height, case.size.width, 3)
        assert made.std() > 10
    assert difference(together[0], together[1]).max() > TOLERANCE
    assert difference(together[1], together[2]).max() > TOLERANCE


def test_order_and_company_change_no_more_than_rounding_and_a_repeat_nothing(
    case: Case, generator: Generator, together: list[Frames]
) -> None:
    asked = case.requests()
    for again, made in zip(frames(generator.generate(asked)), together, strict=True):
        np.testing.assert_array_equal(again, made)
    for other, made in zip(frames(generator.generate(asked[::-1])), together[::-1], strict=True):
        assert difference(other, made).max() <= TOLERANCE
    (alone,) = frames(generator.generate(asked[:1]))
    assert difference(alone, together[0]).max() <= TOLERANCE


def test_a_prompt_is_encoded_once_for_all_its_seeds(case: Case, generator: Generator) -> None:
    prompts, forwards = ("a dog", "a white house in snow"), Counter[int]()

    def count(module: nn.Module, *_: Any) -> None:
        if isinstance(module, PreTrainedModel):
            forwards[id(module)] += 1

    hook = register_module_forward_hook(count)
    try:
        frames(generator.generate(case.request(text, 1) for text in prompts))
        assert forwards
        forwards.clear()
        frames(generator.generate(case.request(text, 2) for text in prompts))
    finally:
        hook.remove()
    calls = len(prompts) if case.negatives else 0
    assert max(forwards.values(), default=0) <= calls


def test_an_unreadable_prompt_does_not_take_its_batch_along(
    case: Case, generator: Generator, together: list[Frames]
) -> None:
    first, second, _ = case.requests()
    results = list(generator.generate([first, case.request(UNREADABLE, 1), second]))
    for survivor, made in zip(frames(results[::2]), together, strict=False):
        assert difference(survivor, made).max() <= TOLERANCE
    if case.mends:
        frames(results)
    else:
        assert isinstance(results[1], ItemError)
        assert "\n" not in str(results[1])


def test_a_bfloat16_model_makes_frames(case: Case, store: Store) -> None:
    generator = DiffusionGenerator(case.spec(dtype="bfloat16"))
    generator.open(store)
    (made,) = frames(generator.generate([case.request(LONG, 1)]))
    assert made.shape == (case.size.frames, case.size.height, case.size.width, 3)
    generator.close()


def test_nan_weights_make_item_errors(case: Case, store: Store, tmp_path: Path) -> None:
    spec = altered(case, tmp_path)
    for file in (tmp_path / case.checkpoint).glob("[tu]*/diffusion_pytorch_model.safetensors"):
        save_file({name: torch.full_like(value, torch.nan) for name, value in load_file(file).items()}, file)
    generator = DiffusionGenerator(repinned(spec))
    generator.open(store)
    results = list(generator.generate([case.request(SHORT, 1), case.request(SHORT, 2)]))
    assert len(results) == 2
    for result in results:
        assert isinstance(result, ItemError)
        assert "NaN" in str(result)


@pytest.mark.parametrize("case", FROM_IMAGE, ids=str, indirect=True)
def test_a_video_starts_from_the_image_given_scaled_to_its_size(case: Case, generator: Generator) -> None:
    asked = [case.request(SHORT, 1, source=source) for source in (0, 1)]
    one, other = frames(generator.generate(asked))
    assert difference(one, other).max() > TOLERANCE
    assert asked[0].source is not None
    larger = asked[0].source.repeat(2, axis=1).repeat(2, axis=2)
    (scaled,) = frames(generator.generate([replace(asked[0], source=larger)]))
    assert difference(one, scaled).mean() < difference(one, other).mean()
    (missing,) = generator.generate([replace(asked[0], source=None)])
    assert isinstance(missing, ItemError)
    assert "starts_from" in str(missing)


@pytest.mark.parametrize("case", VIDEOS, ids=str, indirect=True)
def test_a_length_that_the_model_cannot_make_is_refused(case: Case, generator: Generator) -> None:
    even = replace(case.size, frames=8)
    refused, made = generator.generate([case.request(SHORT, 1, size=even), case.request(SHORT, 1)])
    assert isinstance(refused, ItemError)
    assert "set the row's frames to" in str(refused)
    frames([made])


@pytest.mark.parametrize("case", [FLUX, QWEN, HIDREAM], ids=str, indirect=True)
def test_an_image_of_the_real_size_becomes_a_jpeg(case: Case, generator: Generator) -> None:
    size = Size(width=1024, height=1024)
    (made,) = frames(generator.generate([case.request(LONG, 1, size=size)]))
    encoded = media.encode(made, 0)
    assert encoded.mime == "image/jpeg"
    assert media.decode(encoded.data, encoded.mime).shape == (1, 1024, 1024, 3)


@pytest.mark.parametrize(("name", "height", "length"), [("wan", 720, 5), ("ltx", 704, 9)])
def test_a_video_of_the_real_size_becomes_an_mp4(name: str, height: int, length: int, store: Store) -> None:
    case = next(case for case in VIDEOS if case.checkpoint == name)
    size = Size(width=1280, height=height, frames=length, fps=24)
    generator = DiffusionGenerator(case.spec(steps=1, guidance=1.0))
    generator.open(store)
    (made,) = frames(generator.generate([case.request(LONG, 1, size=size)]))
    encoded = media.encode(made, size.fps)
    assert encoded.mime == "video/mp4"
    assert (encoded.probe.width, encoded.probe.height) == (1280, height)
    assert (encoded.probe.frames, encoded.probe.fps) == (length, 24)
    generator.close()
