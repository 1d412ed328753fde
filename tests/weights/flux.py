"""FLUX.1, FLUX.2 and Chroma; a latent has the size and the channels that the real model's has."""

from __future__ import annotations

from typing import Any

from diffusers import (
    ChromaPipeline,
    ChromaTransformer2DModel,
    DiffusionPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
)

from tests.weights import encoders, vaes, words
from tests.weights.parts import BY_SIZE, Model, flow, seeded


def flux() -> DiffusionPipeline:
    """FLUX.1: CLIP and T5; guidance is an input of the transformer."""
    clip, t5 = words.clip(), words.t5()
    return FluxPipeline(
        scheduler=flow(**BY_SIZE),
        vae=vaes.flux(),
        text_encoder=encoders.clip(clip),
        tokenizer=clip,
        text_encoder_2=encoders.t5(t5),
        tokenizer_2=t5,
        transformer=seeded(
            lambda: FluxTransformer2DModel(
                **_double_stream(in_channels=64, joint_attention_dim=32, axes_dims_rope=(4, 6, 6)),
                pooled_projection_dim=32,
                guidance_embeds=True,
            )
        ),
    )


def flux2() -> DiffusionPipeline:
    """FLUX.2-dev: Mistral3."""
    tokenizer = words.llama()
    return Flux2Pipeline(
        scheduler=flow(**BY_SIZE),
        vae=vaes.flux2(),
        text_encoder=encoders.mistral3(tokenizer),
        tokenizer=tokenizer,
        transformer=_flux2(guidance=True),
    )


def flux2_klein() -> DiffusionPipeline:
    """FLUX.2-klein: Qwen3, whose states after layers 9, 18 and 27 are read."""
    tokenizer = words.qwen()
    return Flux2KleinPipeline(
        scheduler=flow(**BY_SIZE),
        vae=vaes.flux2(),
        text_encoder=encoders.qwen3(tokenizer, width=16, layers=28, head=True),
        tokenizer=tokenizer,
        transformer=_flux2(guidance=False),
        is_distilled=True,
    )


def chroma() -> DiffusionPipeline:
    """Chroma1: FLUX.1's shape with T5 alone and true guidance."""
    t5 = words.t5()
    return ChromaPipeline(
        scheduler=flow(),
        vae=vaes.flux(),
        text_encoder=encoders.t5(t5),
        tokenizer=t5,
        transformer=seeded(
            lambda: ChromaTransformer2DModel(
                **_double_stream(in_channels=64, joint_attention_dim=32, axes_dims_rope=(4, 6, 6)),
                approximator_num_channels=64,
                approximator_hidden_dim=32,
                approximator_layers=1,
            )
        ),
    )


def _flux2(*, guidance: bool) -> Model:
    return seeded(
        lambda: Flux2Transformer2DModel(
            **_double_stream(in_channels=128, joint_attention_dim=48, axes_dims_rope=(4, 4, 4, 4)),
            guidance_embeds=guidance,
        )
    )


def _double_stream(**own: Any) -> dict[str, Any]:
    """Return the smallest FLUX: one block of two streams, one of a single stream."""
    shape = {
        "patch_size": 1,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
    }
    return {**shape, **own}
