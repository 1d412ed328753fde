"""The options of rows that run on diffusers are refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.generators.base import GeneratorSpec
from pipeline.generators.diffusion import DiffusionGenerator
from pipeline.generators.diffusion.options import CHOICES, FAMILIES, NUMBERS, TEXTS, read
from pipeline.weights import Weights

WEIGHTS = Weights(repo="org/model", disk=1.0, memory=1.0)


def spec(**options: float | str) -> GeneratorSpec:
    return GeneratorSpec(
        name="org/row",
        family="diffusion",
        modality="image",
        licence="MIT",
        licence_profile="permissive",
        weights=WEIGHTS,
        options=options,
    )


def test_settings_go_to_the_arguments_that_the_family_takes_them_by() -> None:
    options = read(spec(pipeline="QwenImagePipeline", steps=50, guidance=4, max_sequence_length=256))
    assert options.call == {
        "num_inference_steps": 50,
        "true_cfg_scale": 4,
        "max_sequence_length": 256,
    }
    assert options.encode == {"max_sequence_length": 256}
    assert options.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 4}, "option 'pipeline' is missing"),
        ({"pipeline": "FluxPipeline"}, "option 'steps' is missing"),
        ({"pipeline": "FluxPipelin", "steps": 4}, "did you mean 'FluxPipeline'"),
        ({"pipeline": "FluxPipeline", "steps": 4, "guidence": 3.5}, "did you mean 'guidance'"),
        ({"pipeline": "FluxPipeline", "steps": 4, "guidance_2": 3.5}, "no option 'guidance_2'"),
        ({"pipeline": "FluxPipeline", "steps": 4.0}, "must be a whole number above 0"),
        ({"pipeline": "FluxPipeline", "steps": 0}, "must be a whole number above 0"),
        ({"pipeline": "FluxPipeline", "steps": 4, "guidance": "3.5"}, "must be a number of 0 or more"),
        ({"pipeline": "FluxPipeline", "steps": 4, "guidance": float("nan")}, "must be a number of 0 or more"),
        ({"pipeline": "FluxPipeline", "steps": 4, "dtype": "bf16"}, "did you mean 'bfloat16'"),
        ({"pipeline": "FluxPipeline", "steps": 4, "quantise": 8}, "did you mean 'fp8'"),
        ({"pipeline": "FluxPipeline", "steps": 4, "scheduler": 1}, "must be a text"),
        ({"pipeline": "FluxPipeline", "steps": 4, "negative_prompt": "blur"}, "takes no negative_prompt"),
        ({"pipeline": "SanaPipeline", "steps": 4, "cache": 0.1}, "has no first-block cache"),
    ],
)
def test_a_wrong_option_is_named_with_the_remedy(options: Mapping[str, float | str], says: str) -> None:
    with pytest.raises(ConfigError, match="org/row") as error:
        DiffusionGenerator(spec(**options))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_row_without_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="no weights"):
        DiffusionGenerator(replace(spec(pipeline="FluxPipeline", steps=4), weights=None))


@given(
    st.sampled_from(sorted(FAMILIES)),
    st.dictionaries(
        st.sampled_from(["steps", "guidance", *NUMBERS, *TEXTS, *CHOICES, "other"]),
        st.one_of(st.floats(), st.integers(), st.text(), st.sampled_from(["int8", "blocks", "tiling"])),
    ),
)
def test_whatever_stands_in_a_row_it_is_read_or_refused(
    pipeline: str, options: dict[str, float | str]
) -> None:
    row = spec(**{"pipeline": pipeline, "steps": 1, **options})
    with suppress(ConfigError):
        made = read(row)
        assert made.call["num_inference_steps"] > 0
        assert made.cache >= 0
