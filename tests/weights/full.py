"""FLUX.1-dev, Wan2.1-T2V-1.3B, SDXL and SD3.5-M in their real shapes, random weights: what runs on a GPU.

The configurations are those that their authors publish; only the tokenizers know fewer words. The text
encoders of SDXL and SD3.5-M have one layer each: who trains keeps embeddings, which have the real shapes.
"""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKL,
    AutoencoderKLWan,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.weights import words
from tests.weights.parts import BY_SIZE, flow, seeded
from tests.weights.stable import NOISE

FLUX_TRANSFORMER = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}
FLUX_VAE = {
    "latent_channels": 16,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
}
WAN_TRANSFORMER = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 8960,
    "num_layers": 30,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024,
}
WAN_VAE = {
    "base_dim": 96,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "temperal_downsample": [False, True, True],
}
SDXL_UNET = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD35_TRANSFORMER = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}
XXL = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False,
    "use_cache": False,
    "tie_word_embeddings": False,
}


def flux() -> DiffusionPipeline:
    """FLUX.1-dev: a transformer of 11.9 billion parameters, T5-XXL's encoder, CLIP-L."""
    clip, t5 = words.clip(), words.t5()
    return FluxPipeline(
        scheduler=flow(**BY_SIZE),
        tokenizer=clip,
        text_encoder=seeded(lambda: CLIPTextModel(_clip_l(clip))),
        tokenizer_2=t5,
        text_encoder_2=seeded(lambda: T5EncoderModel(T5Config(**_xxl(32128)))),
        vae=seeded(lambda: AutoencoderKL(**FLUX_VAE)),
        transformer=seeded(lambda: FluxTransformer2DModel(**FLUX_TRANSFORMER)),
    )


def wan() -> DiffusionPipeline:
    """Wan2.1-T2V-1.3B: a transformer of 1.4 billion parameters, UMT5-XXL's encoder."""
    return WanPipeline(
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
        ),
        tokenizer=words.t5(),
        text_encoder=seeded(lambda: UMT5EncoderModel(UMT5Config(**_xxl(256384)))),
        vae=seeded(lambda: AutoencoderKLWan(**WAN_VAE)),
        transformer=seeded(lambda: WanTransformer3DModel(**WAN_TRANSFORMER)),
    )


def sdxl() -> DiffusionPipeline:
    """SDXL: a UNet of 2.57 billion parameters."""
    clip = words.clip()
    vae = {**FLUX_VAE, "latent_channels": 4, "scaling_factor": 0.13025, "shift_factor": None}
    quant = {"use_quant_conv": True, "use_post_quant_conv": True}
    return StableDiffusionXLPipeline(
        vae=seeded(lambda: AutoencoderKL(**{**vae, **quant})),
        text_encoder=_clip(clip, 768, CLIPTextModel),
        tokenizer=clip,
        text_encoder_2=_clip(clip, 1280, CLIPTextModelWithProjection),
        tokenizer_2=clip,
        unet=seeded(lambda: UNet2DConditionModel(**SDXL_UNET)),
        scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading", steps_offset=1),
    )


def sd3() -> DiffusionPipeline:
    """Stable Diffusion 3.5 Medium: a transformer of 2.24 billion parameters."""
    clip, t5 = words.clip(), words.t5()
    vae = {**FLUX_VAE, "scaling_factor": 1.5305, "shift_factor": 0.0609}
    return StableDiffusion3Pipeline(
        scheduler=flow(shift=3.0),
        vae=seeded(lambda: AutoencoderKL(**vae)),
        text_encoder=_clip(clip, 768, CLIPTextModelWithProjection),
        tokenizer=clip,
        text_encoder_2=_clip(clip, 1280, CLIPTextModelWithProjection),
        tokenizer_2=clip,
        text_encoder_3=seeded(lambda: T5EncoderModel(T5Config(**{**_xxl(32128), "num_layers": 1}))),
        tokenizer_3=t5,
        transformer=seeded(lambda: SD3Transformer2DModel(**SD35_TRANSFORMER)),
    )


def _clip(tokenizer: Any, width: int, kind: Any) -> Any:
    sizes = {"hidden_size": width, "projection_dim": width, "num_attention_heads": width // 64}
    config = _clip_l(tokenizer)
    config.update({**sizes, "num_hidden_layers": 1})
    return seeded(lambda: kind(config))


def _clip_l(tokenizer: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _xxl(vocabulary: int) -> dict[str, Any]:
    return {**XXL, "vocab_size": vocabulary}
