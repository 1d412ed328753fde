"""Stable Diffusion 1.5, XL and 3.5; a latent has the size and the channels that the real model's has."""

from __future__ import annotations

from typing import Any

from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from tests.weights import encoders, vaes, words
from tests.weights.parts import flow, seeded

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
"""The noise schedule of Stable Diffusion 1 and XL."""


def sd15() -> DiffusionPipeline:
    """Stable Diffusion 1.5: one CLIP encoder, a UNet, classifier-free guidance."""
    clip = words.clip()
    return StableDiffusionPipeline(
        vae=vaes.kl(4, quant=True, scale=0.18215),
        text_encoder=encoders.clip(clip),
        tokenizer=clip,
        unet=seeded(lambda: UNet2DConditionModel(**_unet(sample_size=64, cross_attention_dim=32))),
        scheduler=DDIMScheduler(**NOISE, steps_offset=1, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> DiffusionPipeline:
    """SDXL: two CLIP encoders, a UNet, classifier-free guidance."""
    clip = words.clip()
    return StableDiffusionXLPipeline(
        vae=vaes.kl(4, quant=True, scale=0.13025),
        text_encoder=encoders.clip(clip),
        tokenizer=clip,
        text_encoder_2=encoders.clip(clip, projected=True),
        tokenizer_2=clip,
        unet=seeded(
            lambda: UNet2DConditionModel(
                **_unet(sample_size=128, cross_attention_dim=64),
                attention_head_dim=(2, 4),
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                transformer_layers_per_block=(1, 1),
                projection_class_embeddings_input_dim=6 * 8 + 32,
            )
        ),
        scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading", steps_offset=1),
    )


def sd3() -> DiffusionPipeline:
    """Stable Diffusion 3.5: two CLIP encoders and T5."""
    clip, t5 = words.clip(), words.t5()
    return StableDiffusion3Pipeline(
        scheduler=flow(shift=3.0),
        vae=vaes.kl(16, scale=1.5305, shift=0.0609),
        text_encoder=encoders.clip(clip, projected=True),
        tokenizer=clip,
        text_encoder_2=encoders.clip(clip, projected=True),
        tokenizer_2=clip,
        text_encoder_3=encoders.t5(t5, width=64),
        tokenizer_3=t5,
        transformer=seeded(
            lambda: SD3Transformer2DModel(
                sample_size=128,
                patch_size=2,
                in_channels=16,
                out_channels=16,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                caption_projection_dim=32,
                joint_attention_dim=64,
                pooled_projection_dim=64,
                pos_embed_max_size=96,
            )
        ),
    )


def _unet(**own: Any) -> dict[str, Any]:
    """Return the smallest UNet: one block of convolutions, one with attention to the prompt."""
    shape = {
        "block_out_channels": (4, 8),
        "layers_per_block": 1,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 2,
    }
    return {**shape, **own}
