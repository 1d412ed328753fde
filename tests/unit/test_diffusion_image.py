"""Every image family makes what its pipeline makes when it is called as its documentation says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers

from pipeline.config import Size
from pipeline.generators.diffusion import DiffusionGenerator
from pipeline.generators.diffusion.image import FAMILIES
from pipeline.storage import open_store
from tests.unit.test_diffusion_adapter import STEPS, frames, request, spec
from tests.weights import tiny

QUOTING = 'a painting of a grey house with a sign that says "OPEN 24 HOURS"'
PLAIN = "two people sitting on a wooden table at night"
BLURRY = {"negative_prompt": "blurry, low quality"}
EMPTY = {"negative_prompt": ""}
NONE: dict[str, Any] = {}

CHECKPOINTS = {
    "FluxPipeline": "flux",
    "Flux2Pipeline": "flux2",
    "Flux2KleinPipeline": "flux2_klein",
    "QwenImagePipeline": "qwenimage",
    "HiDreamImagePipeline": "hidream",
    "StableDiffusion3Pipeline": "sd3",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionPipeline": "sd15",
    "SanaPipeline": "sana",
    "PixArtSigmaPipeline": "pixart_sigma",
    "ZImagePipeline": "zimage",
    "HunyuanImagePipeline": "hunyuan_image",
    "ChromaPipeline": "chroma",
    "Krea2Pipeline": "krea2",
}

# Pipeline, the row's option negative_prompt, what a plain call says of it (and of its own quirks).
CALLS: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("FluxPipeline", NONE, NONE),
    ("Flux2Pipeline", NONE, NONE),
    ("Flux2KleinPipeline", NONE, NONE),
    ("QwenImagePipeline", NONE, EMPTY),
    ("QwenImagePipeline", BLURRY, BLURRY),
    ("HiDreamImagePipeline", BLURRY, BLURRY),
    ("StableDiffusion3Pipeline", BLURRY, BLURRY),
    ("StableDiffusionXLPipeline", NONE, NONE),
    ("StableDiffusionXLPipeline", BLURRY, BLURRY),
    ("StableDiffusionPipeline", BLURRY, BLURRY),
    ("SanaPipeline", BLURRY, BLURRY),
    ("PixArtSigmaPipeline", BLURRY, {**BLURRY, "clean_caption": False}),
    ("ZImagePipeline", BLURRY, BLURRY),
    ("HunyuanImagePipeline", BLURRY, BLURRY),
    ("ChromaPipeline", BLURRY, BLURRY),
    ("Krea2Pipeline", BLURRY, BLURRY),
]
IDS = [f"{pipeline}-{'negative' if options else 'plain'}" for pipeline, options, _ in CALLS]


def test_every_family_is_compared() -> None:
    assert (
        {pipeline for pipeline, _, _ in CALLS} == {family.pipeline for family in FAMILIES} == {*CHECKPOINTS}
    )


@pytest.mark.slow
@pytest.mark.parametrize(("pipeline", "options", "said"), CALLS, ids=IDS)
def test_frames_are_those_of_a_plain_call(
    pipeline: str, options: dict[str, Any], said: dict[str, Any], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    side = 1024 if pipeline == "HiDreamImagePipeline" else 64  # it makes a million pixels, whatever is asked
    texts = (PLAIN, QUOTING) if pipeline == "HunyuanImagePipeline" else (QUOTING,)
    family = next(family for family in FAMILIES if family.pipeline == pipeline)
    generator = DiffusionGenerator(
        spec(tiny(CHECKPOINTS[pipeline]), pipeline, batch=2, guidance=3.0, **options)
    )
    generator.open(open_store(str(tmp_path)))
    made = list(generator.generate(request(7, text, Size(width=side, height=side)) for text in texts))
    pipe = plain(pipeline)
    for text, result in zip(texts, made, strict=True):
        image = pipe(
            prompt=text,
            height=side,
            width=side,
            num_inference_steps=STEPS,
            generator=torch.Generator().manual_seed(7),
            output_type="np",
            **{family.options["guidance"]: 3.0},
            **said,
        ).images
        np.testing.assert_array_equal(frames(result), (image * 255).round().astype(np.uint8))


def plain(pipeline: str) -> Any:
    """Load a checkpoint as its documentation says."""
    weights, others = tiny(CHECKPOINTS[pipeline]), dict[str, Any]()
    if weights.borrowed:
        llama = f"{weights.borrowed.root}/{weights.borrowed.repo}"
        others["tokenizer_4"] = transformers.AutoTokenizer.from_pretrained(llama)
        others["text_encoder_4"] = transformers.LlamaForCausalLM.from_pretrained(llama)
    pipe = getattr(diffusers, pipeline).from_pretrained(f"{weights.root}/{weights.repo}", **others)
    pipe.set_progress_bar_config(disable=True)
    return pipe
