"""Autoencoders of the real classes and strides, with a few channels."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
)

from tests.weights.parts import Model, seeded

FOUR = (4, 4, 8, 8)


def kl(channels: int, *, quant: bool = False, scale: float, shift: float | None = None) -> Model:
    """Return an 8x autoencoder: Stable Diffusion's has 4 channels and ``quant``, later ones 16 and none."""
    return seeded(
        lambda: AutoencoderKL(
            **_blocks(channels),
            use_quant_conv=quant,
            use_post_quant_conv=quant,
            scaling_factor=scale,
            shift_factor=shift,
        )
    )


def flux() -> Model:
    """Return the autoencoder of FLUX.1, which Z-Image, Chroma and HiDream share."""
    return kl(16, scale=0.3611, shift=0.1159)


def flux2() -> Model:
    """Return the 8x autoencoder of FLUX.2, 32 channels."""
    return seeded(lambda: AutoencoderKLFlux2(**_blocks(32)))


def wan() -> Model:
    """Return the autoencoder of Wan2.1: 8x in space, 4x in time, 16 channels."""
    return seeded(lambda: AutoencoderKLWan(**_causal()))


def wan22() -> Model:
    """Return the autoencoder of Wan2.2-TI2V-5B: 16x in space, 4x in time, 48 channels."""
    return seeded(
        lambda: AutoencoderKLWan(
            **{**_causal(), "z_dim": 48},
            decoder_base_dim=4,
            is_residual=True,
            patch_size=2,
            in_channels=12,
            out_channels=12,
            scale_factor_spatial=16,
            latents_mean=[0.0] * 48,
            latents_std=[1.0] * 48,
        )
    )


def qwen() -> Model:
    """Return the autoencoder of Qwen-Image, Wan's for one frame."""
    return seeded(lambda: AutoencoderKLQwenImage(**_causal()))


def hunyuan_image() -> Model:
    """Return the 32x autoencoder of HunyuanImage 2.1."""
    return seeded(
        lambda: AutoencoderKLHunyuanImage(
            in_channels=3,
            out_channels=3,
            latent_channels=16,
            block_out_channels=(32,) * 6,
            layers_per_block=1,
            spatial_compression_ratio=32,
            sample_size=384,
            scaling_factor=0.75,
        )
    )


def hunyuan_video() -> Model:
    """Return the autoencoder of HunyuanVideo: 8x in space, 4x in time."""
    return seeded(
        lambda: AutoencoderKLHunyuanVideo(
            latent_channels=16,
            block_out_channels=FOUR,
            layers_per_block=1,
            norm_num_groups=2,
            mid_block_add_attention=False,
        )
    )


def dc() -> Model:
    """Return the 32x deep-compression autoencoder of SANA."""
    blocks = 6
    return seeded(
        lambda: AutoencoderDC(
            in_channels=3,
            latent_channels=8,
            attention_head_dim=2,
            encoder_block_types="ResBlock",
            decoder_block_types="ResBlock",
            encoder_block_out_channels=(8,) * blocks,
            decoder_block_out_channels=(8,) * blocks,
            encoder_layers_per_block=(1,) * blocks,
            decoder_layers_per_block=(1,) * blocks,
            encoder_qkv_multiscales=((),) * blocks,
            decoder_qkv_multiscales=((),) * blocks,
            scaling_factor=0.41407,
        )
    )


def ltx() -> Model:
    """Return the autoencoder of LTX-Video: 32x in space, 8x in time."""
    return seeded(
        lambda: AutoencoderKLLTXVideo(
            latent_channels=16,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1),
            spatio_temporal_scaling=(True, True, True, False),
            decoder_spatio_temporal_scaling=(True, True, True),
            decoder_inject_noise=(False,) * 4,
            upsample_residual=(False,) * 3,
            upsample_factor=(1, 1, 1),
            patch_size=4,
            patch_size_t=1,
        )
    )


def _blocks(channels: int) -> dict[str, Any]:
    return {
        "latent_channels": channels,
        "block_out_channels": FOUR,
        "down_block_types": ("DownEncoderBlock2D",) * len(FOUR),
        "up_block_types": ("UpDecoderBlock2D",) * len(FOUR),
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "sample_size": 1024,
        "mid_block_add_attention": False,
    }


def _causal() -> dict[str, Any]:
    return {
        "base_dim": 4,
        "z_dim": 16,
        "dim_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
    }
