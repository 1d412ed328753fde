"""Batches, faults and look-ahead of the generator that runs on diffusers, over a tiny real FLUX."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

from pipeline.config import Size
from pipeline.errors import ItemError, WorkerError
from pipeline.generators.base import GeneratorSpec, Rendered, Request
from pipeline.generators.diffusion import DiffusionGenerator
from pipeline.ids import content_id
from pipeline.media.frames import Frames
from pipeline.records import Checks, Prompt
from pipeline.storage import Store, open_store
from pipeline.weights import Weights
from tests.weights import tiny

SMALL = Size(width=64, height=64)
STEPS = 2


def spec(weights: Weights, pipeline: str, *, batch: int = 1, **options: float | str) -> GeneratorSpec:
    return GeneratorSpec(
        name=f"tiny/{weights.repo}",
        family="diffusion",
        modality="image",
        licence="Apache-2.0",
        licence_profile="permissive",
        weights=weights,
        batch=batch,
        options={"pipeline": pipeline, "steps": STEPS, "dtype": "float32", **options},
    )


def request(seed: int, text: str = "a red cat", size: Size = SMALL) -> Request:
    name = content_id("prompt", text=text)
    prompt = Prompt(
        id=name,
        root_id=name,
        category="aesthetics",
        bucket=0,
        text=text,
        subject="cat",
        style="",
        checks=Checks(),
        source="test",
        licence="CC0-1.0",
    )
    return Request(id=content_id("generation", prompt=name, seed=seed), prompt=prompt, seed=seed, size=size)


def frames(result: Rendered | ItemError) -> Frames:
    assert isinstance(result, Rendered), result
    return result.frames


Forward = Callable[..., Any]


class Forwards:
    """Every call of the denoiser, and what a test does in its place."""

    def __init__(self, real: Forward) -> None:
        self.real = real
        self.batches: list[int] = []
        self.instead: Callable[[torch.Tensor, Callable[[], Any]], Any] = lambda _, call: call()

    def __call__(self, *args: Any, hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        self.batches.append(len(hidden_states))
        return self.instead(hidden_states, lambda: self.real(*args, hidden_states=hidden_states, **kwargs))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("run")))


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> Forwards:
    """Stand between the pipeline and its denoiser."""
    made = Forwards(FluxTransformer2DModel.forward)
    monkeypatch.setattr(FluxTransformer2DModel, "forward", lambda *args, **kwargs: made(*args, **kwargs))
    return made


Open = Callable[..., DiffusionGenerator]


@pytest.fixture(scope="module")
def shelf() -> Iterator[dict[str, DiffusionGenerator]]:
    """Keep generators open from test to test."""
    made: dict[str, DiffusionGenerator] = {}
    yield made
    for generator in made.values():
        generator.close()


@pytest.fixture
def opened(store: Store, forwards: Forwards, shelf: dict[str, DiffusionGenerator]) -> Open:
    """Return what opens a generator over FLUX, whose denoiser ``forwards`` watches."""
    del forwards

    def open_one(**options: Any) -> DiffusionGenerator:
        if str(options) not in shelf:
            generator = DiffusionGenerator(spec(tiny("flux"), "FluxPipeline", **options))
            generator.open(store)
            shelf[str(options)] = generator
        return shelf[str(options)]

    return open_one


def test_requests_of_one_size_share_batches_and_come_back_in_order(opened: Open, forwards: Forwards) -> None:
    wide = Size(width=96, height=64)
    asked = [request(seed, size=wide if seed in (3, 4) else SMALL) for seed in range(8)]
    together = [frames(result) for result in opened(batch=3).generate(asked)]
    assert forwards.batches == [n for n in (3, 2, 3) for _ in range(STEPS)]
    assert [f.shape for f in together] == [(1, r.size.height, r.size.width, 3) for r in asked]
    for one, made in zip(opened(batch=1).generate(asked), together, strict=True):
        assert np.abs(frames(one).astype(int) - made).max() <= 1


def test_requests_are_taken_as_they_are_needed(opened: Open) -> None:
    taken: list[int] = []

    def endless() -> Iterator[Request]:
        while True:
            taken.append(len(taken))
            yield request(taken[-1])

    results = opened(batch=2).generate(endless())
    assert not taken
    frames(next(results))
    assert len(taken) == 6  # one batch that is done, two that the device may go on with
    frames(next(results))
    assert len(taken) == 6
    frames(next(results))
    assert len(taken) == 8
    results.close()  # type: ignore[attr-defined]


def test_the_device_goes_on_while_the_caller_has_a_result(opened: Open, forwards: Forwards) -> None:
    third = threading.Event()

    def note(_: torch.Tensor, call: Callable[[], Any]) -> Any:
        if len(forwards.batches) > 2 * STEPS:
            third.set()
        return call()

    forwards.instead = note
    results = opened(batch=1).generate(request(seed) for seed in range(4))
    frames(next(results))
    assert third.wait(timeout=60), "the third request is not begun before the second is asked for"
    assert len([frames(result) for result in results]) == 3


def test_a_caller_that_stops_leaves_no_thread_behind(opened: Open) -> None:
    before = threading.active_count()
    results = opened(batch=1).generate(request(seed) for seed in range(50))
    frames(next(results))
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_out_of_memory_halves_the_batch_for_good_and_loses_nothing(opened: Open, forwards: Forwards) -> None:
    def small_gpu(latents: torch.Tensor, call: Callable[[], Any]) -> Any:
        if len(latents) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return call()

    generator = opened(batch=8)  # of no other test: it remembers
    asked = [request(seed) for seed in range(11)]
    whole = [frames(result) for result in generator.generate(asked)]
    forwards.batches.clear()
    forwards.instead = small_gpu
    made = [frames(result) for result in generator.generate(asked)]
    assert [n for n in forwards.batches if n > 2] == [8, 4]
    for before, after in zip(whole, made, strict=True):
        assert np.abs(before.astype(int) - after).max() <= 1
    forwards.batches.clear()
    list(generator.generate(asked))
    assert max(forwards.batches) == 2


def test_one_request_that_does_not_fit_is_its_own_error(opened: Open, forwards: Forwards) -> None:
    def tiny_gpu(latents: torch.Tensor, call: Callable[[], Any]) -> Any:
        if latents.shape[1] > 16:  # packed latents: one token for 16x16 pixels
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call()

    forwards.instead = tiny_gpu
    large = request(2, size=Size(width=128, height=128))
    generator = opened(batch=4)  # of no other test: it remembers
    first, too_large, last = generator.generate([request(1), large, request(3)])
    frames(first)
    frames(last)
    assert isinstance(too_large, ItemError)
    assert "128x128 does not fit" in str(too_large)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_none_are_the_error_of_their_own_request(
    value: float, opened: Open, forwards: Forwards
) -> None:
    def spoil(_: torch.Tensor, call: Callable[[], Any]) -> Any:
        (velocity,) = call()
        velocity[1, 0, 0] = value
        return (velocity,)

    forwards.instead = spoil
    first, broken, last = opened(batch=3).generate([request(seed) for seed in range(3)])
    frames(first)
    frames(last)
    assert isinstance(broken, ItemError)
    assert "NaN or infinite" in str(broken)


def test_what_fails_together_is_tried_apart(opened: Open, forwards: Forwards) -> None:
    def fail(latents: torch.Tensor, call: Callable[[], Any]) -> Any:
        if len(latents) > 1:
            raise ValueError("a batch\nof many")
        return call()

    forwards.instead = fail
    assert all(isinstance(r, Rendered) for r in opened(batch=3).generate(request(n) for n in range(5)))


def test_a_prompt_that_cannot_be_encoded_fails_alone(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    real = FluxPipeline.encode_prompt

    def encode(self: FluxPipeline, prompt: list[str] | None, **kwargs: Any) -> Any:
        if prompt and "cursed" in prompt[0]:
            raise IndexError("index out of range\nin self")
        return real(self, prompt, **kwargs)

    monkeypatch.setattr(FluxPipeline, "encode_prompt", encode)
    asked = [request(1), request(2, "a cursed prompt"), request(3)]
    first, broken, last = opened(batch=3).generate(asked)
    frames(first)
    frames(last)
    assert isinstance(broken, ItemError)
    assert str(broken) == "IndexError: index out of range in self"


@pytest.mark.parametrize("error", [torch.AcceleratorError, MemoryError])
def test_a_worker_that_is_lost_says_so(error: type[Exception], opened: Open, forwards: Forwards) -> None:
    def die(*_: Any) -> Any:
        raise error("CUDA error: device-side assert triggered")

    generator = opened(batch=2)
    forwards.instead = die
    with pytest.raises((WorkerError, MemoryError)) as caught:
        list(generator.generate([request(1), request(2)]))
    assert "device-side assert" in str(caught.value)


def test_a_call_cut_short_leaves_nothing_in_the_step_cache(opened: Open, forwards: Forwards) -> None:
    generator = opened(batch=4, cache=100.0, steps=6)  # every step but a request's first is skipped
    asked = [request(1), request(2), request(3)]
    undisturbed = [frames(result) for result in generator.generate(asked)]
    assert set(forwards.batches) == {1}  # the cache decides for a whole batch: one request makes it
    forwards.batches.clear()

    def fail_once(_: torch.Tensor, call: Callable[[], Any]) -> Any:
        if len(forwards.batches) == 6 + 3:
            raise ValueError("cut short")
        return call()

    forwards.instead = fail_once
    first, broken, last = generator.generate(asked)
    assert isinstance(broken, ItemError)
    np.testing.assert_array_equal(frames(first), undisturbed[0])
    np.testing.assert_array_equal(frames(last), undisturbed[2])


def test_a_generator_that_is_not_open_says_so(opened: Open) -> None:
    generator = opened(batch=5)
    generator.close()
    with pytest.raises(WorkerError, match="is not open"):
        next(generator.generate([request(1)]))
