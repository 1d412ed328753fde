"""What the options of a row do to the pipeline that is loaded, and what cannot be loaded."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.hooks import group_offloading
from transformers import PreTrainedModel

from pipeline.errors import VipoError, WorkerError
from pipeline.generators.diffusion import DiffusionGenerator, load
from pipeline.media.frames import Frames
from pipeline.storage import Store, open_store
from tests.unit.test_diffusion_adapter import frames, request, spec
from tests.weights import tiny

pytestmark = pytest.mark.slow

FLUX = ("flux", "FluxPipeline")
QWEN = ("qwenimage", "QwenImagePipeline")
SD3 = ("sd3", "StableDiffusion3Pipeline")
SDXL = ("sdxl", "StableDiffusionXLPipeline")
ZIMAGE = ("zimage", "ZImagePipeline")
HUNYUAN = ("hunyuan_image", "HunyuanImagePipeline")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("run")))


def made(store: Store, which: tuple[str, str], **options: Any) -> Frames:
    checkpoint, pipeline = which
    generator = DiffusionGenerator(spec(tiny(checkpoint), pipeline, **{"steps": 4, **options}))
    generator.open(store)
    (result,) = generator.generate([request(3)])
    generator.close()
    return frames(result)


def difference(a: Frames, b: Frames) -> float:
    return float(np.abs(a.astype(int) - b).mean())


@pytest.mark.parametrize("which", [FLUX, QWEN, SDXL, SD3, ZIMAGE])
def test_int8_weights_change_a_little(which: tuple[str, str], store: Store) -> None:
    exact, quantised = made(store, which), made(store, which, quantise="int8")
    assert 0 < difference(exact, quantised) < 10


@pytest.mark.parametrize("which", [FLUX, QWEN, HUNYUAN])
def test_the_first_block_cache_skips_by_its_threshold(which: tuple[str, str], store: Store) -> None:
    exact = made(store, which)
    np.testing.assert_array_equal(exact, made(store, which, cache=1e-9))
    assert difference(exact, made(store, which, cache=100.0)) > 0


@pytest.mark.parametrize("which", [FLUX, QWEN, SD3, ZIMAGE])
def test_text_encoders_that_do_not_fit_work_from_the_host(
    which: tuple[str, str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, real, streamed = made(store, which), group_offloading.apply_group_offloading, []

    def note(model: torch.nn.Module, **how: Any) -> None:
        streamed.append(model)
        real(model, **how)

    monkeypatch.setattr(group_offloading, "apply_group_offloading", note)
    monkeypatch.setattr(load, "memory", lambda _: 1000.0)
    np.testing.assert_array_equal(exact, made(store, which))
    assert streamed
    assert all(isinstance(model, PreTrainedModel) for model in streamed)


def test_tiles_change_only_what_a_seam_blends(store: Store) -> None:
    which = ("sana", "SanaPipeline")
    assert difference(made(store, which), made(store, which, vae="tiling")) > 0


def test_another_scheduler_keeps_the_configuration_but_for_its_shift(store: Store) -> None:
    default = made(store, SD3)
    shifted = made(store, SD3, shift=6.0)
    assert difference(default, shifted) > 0
    np.testing.assert_array_equal(default, made(store, SD3, shift=3.0))  # what the checkpoint says
    heun = made(store, SD3, scheduler="FlowMatchHeunDiscreteScheduler")
    assert difference(default, heun) > 0


def test_a_closed_generator_holds_no_weights(store: Store) -> None:
    generator = DiffusionGenerator(spec(tiny("flux"), "FluxPipeline"))
    gc.collect()  # what the tests before this one left
    before = denoisers()
    generator.open(store)
    assert denoisers() == before + 1
    generator.close()
    assert denoisers() == before


def denoisers() -> int:
    return sum(type(thing) is FluxTransformer2DModel for thing in gc.get_objects())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scheduler": "FlowMatchEulerDiscreteSchedular"}, "did you mean 'FlowMatchEulerDiscreteScheduler'"),
        ({"quantise": "fp8"}, "a CPU has no fp8"),
    ],
)
def test_what_this_machine_cannot_do_is_said_in_one_line(
    options: dict[str, str], says: str, store: Store
) -> None:
    with pytest.raises(WorkerError, match="tiny/flux") as error:
        made(store, FLUX, **options)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_length_that_the_pipeline_does_not_take_is_named(store: Store) -> None:
    with pytest.raises(WorkerError, match="has no argument 'max_sequence_length'"):
        made(store, SDXL, max_sequence_length=77)


def test_another_pipelines_checkpoint_is_refused_with_the_right_name(store: Store) -> None:
    with pytest.raises(WorkerError, match=r"holds a FluxPipeline.*set the row's option pipeline"):
        made(store, ("flux", "ChromaPipeline"))


def test_components_that_no_repository_brings_are_named(store: Store) -> None:
    alone = replace(tiny("hidream"), borrowed=None)
    with pytest.raises(VipoError, match="text_encoder_4") as error:
        DiffusionGenerator(spec(alone, "HiDreamImagePipeline")).open(store)
    assert "\n" not in str(error.value)
