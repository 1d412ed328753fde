"""Video pipelines of the real classes; a latent has the size and the channels that the real model's has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusers import (
    DiffusionPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)

from tests.weights import encoders, vaes, words
from tests.weights.parts import BY_SIZE, Checkpoint, Model, flow, seeded


def wan() -> DiffusionPipeline:
    """Wan2.1 T2V: UMT5, one transformer."""
    return WanPipeline(**_wan(vaes.wan()), transformer=_transformer())


def wan22() -> DiffusionPipeline:
    """Wan2.2 T2V-A14B: one transformer for much noise, one for little."""
    return WanPipeline(
        **_wan(vaes.wan(), shift=12.0),
        transformer=_transformer(),
        transformer_2=_transformer(),
        boundary_ratio=0.875,
    )


def wan22_5b() -> DiffusionPipeline:
    """Wan2.2 TI2V-5B: its own autoencoder of 16x; a first frame goes into the latent itself."""
    return WanPipeline(**_wan(vaes.wan22()), transformer=_transformer(48, 48), expand_timesteps=True)


def wan_i2v() -> DiffusionPipeline:
    """Wan2.2 I2V-A14B: latent, mask (4 channels) and first frame (16) go in; no image encoder."""
    return WanImageToVideoPipeline(
        **_wan(vaes.wan()),
        transformer=_transformer(36),
        transformer_2=_transformer(36),
        boundary_ratio=0.9,
    )


def ltx() -> DiffusionPipeline:
    """LTX-Video: T5; the image-to-video class loads the same files."""
    t5 = words.t5()
    return LTXPipeline(
        scheduler=flow(**BY_SIZE),
        vae=vaes.ltx(),
        text_encoder=encoders.t5(t5),
        tokenizer=t5,
        transformer=seeded(
            lambda: LTXVideoTransformer3DModel(
                in_channels=16,
                out_channels=16,
                num_attention_heads=2,
                attention_head_dim=16,
                cross_attention_dim=32,
                num_layers=2,
                caption_channels=32,
            )
        ),
    )


def hunyuan_video() -> DiffusionPipeline:
    """HunyuanVideo: Llama and CLIP; guidance is an input of the transformer."""
    clip, llama = words.clip(), words.llama()
    return HunyuanVideoPipeline(
        scheduler=flow(shift=7.0),
        vae=vaes.hunyuan_video(),
        text_encoder=encoders.llama(llama, head=False),
        tokenizer=llama,
        text_encoder_2=encoders.clip(clip),
        tokenizer_2=clip,
        transformer=seeded(
            lambda: HunyuanVideoTransformer3DModel(
                num_attention_heads=2,
                attention_head_dim=10,
                num_layers=2,
                num_single_layers=1,
                num_refiner_layers=1,
                guidance_embeds=True,
                text_embed_dim=16,
                pooled_projection_dim=32,
                rope_axes_dim=(2, 4, 4),
            )
        ),
    )


def _wan(vae: Model, *, shift: float = 5.0) -> dict[str, Any]:
    t5 = words.t5()
    return {
        "tokenizer": t5,
        "text_encoder": encoders.umt5(t5),
        "vae": vae,
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
        ),
    }


def _transformer(channels: int = 16, made: int = 16) -> Model:
    return seeded(
        lambda: WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=channels,
            out_channels=made,
            text_dim=32,
            freq_dim=32,
            ffn_dim=32,
            num_layers=2,
        )
    )


VIDEO: dict[str, Callable[[], Checkpoint]] = {
    "wan": wan,
    "wan22": wan22,
    "wan22_5b": wan22_5b,
    "wan_i2v": wan_i2v,
    "ltx": ltx,
    "hunyuan_video": hunyuan_video,
}
"""Every video checkpoint by its name."""
