"""FLUX.1-dev and Wan2.1-T2V-1.3B in their real shapes, random weights: what the benchmark on a GPU runs.

The configurations are those that their authors publish; only the tokenizers know fewer words.
"""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKL,
    AutoencoderKLWan,
    DiffusionPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from tests.weights import words
from tests.weights.parts import BY_SIZE, flow, seeded

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
