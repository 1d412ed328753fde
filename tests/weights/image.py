"""Image pipelines of the real classes; a latent has the size and the channels that the real model's has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import (
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from diffusers.guiders import AdaptiveProjectedMixGuidance

from tests.weights import encoders, vaes, words
from tests.weights.flux import chroma, flux, flux2, flux2_klein
from tests.weights.parts import BY_SIZE, Checkpoint, flow, seeded
from tests.weights.stable import sd3, sd15, sdxl


def qwenimage() -> DiffusionPipeline:
    """Qwen-Image: Qwen2.5-VL; true classifier-free guidance."""
    tokenizer = words.qwen()
    return QwenImagePipeline(
        scheduler=flow(**BY_SIZE),
        vae=vaes.qwen(),
        text_encoder=encoders.qwen25_vl(tokenizer),
        tokenizer=tokenizer,
        transformer=seeded(
            lambda: QwenImageTransformer2DModel(
                patch_size=2,
                in_channels=64,
                out_channels=16,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                axes_dims_rope=(4, 6, 6),
            )
        ),
    )


class Llama:
    """Llama 3.1 as its own repository has it: model and tokenizer in one folder."""

    def save_pretrained(self, folder: Path, **options: Any) -> None:
        """Write both to ``folder``."""
        tokenizer = words.llama()
        encoders.llama(tokenizer, head=True).save_pretrained(folder, **options)
        tokenizer.save_pretrained(folder)


def hidream() -> DiffusionPipeline:
    """HiDream-I1: two Long-CLIP, a T5, and a Llama that its repository leaves to another."""
    clip, t5 = words.clip(), words.t5()
    return HiDreamImagePipeline(
        scheduler=flow(shift=3.0),
        vae=vaes.flux(),
        text_encoder=encoders.clip(clip, projected=True, length=248),
        tokenizer=clip,
        text_encoder_2=encoders.clip(clip, projected=True, length=248),
        tokenizer_2=clip,
        text_encoder_3=encoders.t5(t5),
        tokenizer_3=t5,
        text_encoder_4=None,
        tokenizer_4=None,
        transformer=seeded(
            lambda: HiDreamImageTransformer2DModel(
                patch_size=2,
                in_channels=16,
                out_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=8,
                num_attention_heads=4,
                caption_channels=[32, 16],
                text_emb_dim=64,
                num_routed_experts=4,
                num_activated_experts=2,
                axes_dims_rope=(4, 2, 2),
                max_resolution=(128, 128),
                llama_layers=(0, 1),
            )
        ),
    )


def sana() -> DiffusionPipeline:
    """SANA-1.5: Gemma 2; a latent 32 times smaller than the image."""
    tokenizer = words.llama()
    return SanaPipeline(
        scheduler=flow(shift=3.0),
        vae=vaes.dc(),
        text_encoder=encoders.gemma2(tokenizer),
        tokenizer=tokenizer,
        transformer=seeded(
            lambda: SanaTransformer2DModel(
                patch_size=1,
                in_channels=8,
                out_channels=8,
                num_layers=1,
                num_attention_heads=2,
                attention_head_dim=8,
                num_cross_attention_heads=2,
                cross_attention_head_dim=8,
                cross_attention_dim=16,
                caption_channels=16,
                sample_size=32,
            )
        ),
    )


def pixart_sigma() -> DiffusionPipeline:
    """PixArt-Sigma: T5; the transformer predicts noise and its variance."""
    t5 = words.t5()
    return PixArtSigmaPipeline(
        scheduler=DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear"),
        vae=vaes.kl(4, quant=True, scale=0.13025),
        text_encoder=encoders.t5(t5),
        tokenizer=t5,
        transformer=seeded(
            lambda: PixArtTransformer2DModel(
                num_attention_heads=2,
                attention_head_dim=16,
                in_channels=4,
                out_channels=8,
                num_layers=2,
                cross_attention_dim=32,
                sample_size=128,
                patch_size=2,
                norm_type="ada_norm_single",
                interpolation_scale=2,
                use_additional_conditions=False,
                caption_channels=32,
            )
        ),
    )


def zimage() -> DiffusionPipeline:
    """Z-Image: Qwen3; text and image in one stream."""
    tokenizer = words.qwen()
    return ZImagePipeline(
        scheduler=flow(shift=3.0),
        vae=vaes.flux(),
        text_encoder=encoders.qwen3(tokenizer, width=32, layers=3, head=False),
        tokenizer=tokenizer,
        transformer=seeded(
            lambda: ZImageTransformer2DModel(
                all_patch_size=(2,),
                all_f_patch_size=(1,),
                in_channels=16,
                dim=32,
                n_layers=2,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
                cap_feat_dim=32,
                axes_dims=[4, 6, 6],
                axes_lens=[1536, 512, 512],
            )
        ),
    )


def hunyuan_image() -> DiffusionPipeline:
    """HunyuanImage 2.1: Qwen2.5-VL, and ByT5 for text to write; adaptive projected guidance."""
    tokenizer, bytes_ = words.qwen(), words.byt5()
    return HunyuanImagePipeline(
        scheduler=flow(shift=5.0),
        vae=vaes.hunyuan_image(),
        text_encoder=encoders.qwen25_vl(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=encoders.t5(bytes_),
        tokenizer_2=bytes_,
        transformer=seeded(
            lambda: HunyuanImageTransformer2DModel(
                in_channels=16,
                out_channels=16,
                num_attention_heads=4,
                attention_head_dim=8,
                num_layers=1,
                num_single_layers=1,
                num_refiner_layers=1,
                patch_size=(1, 1),
                text_embed_dim=32,
                text_embed_2_dim=32,
                rope_axes_dim=(4, 4),
            )
        ),
        guider=AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=2),
        ocr_guider=AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=3),
    )


def krea2() -> DiffusionPipeline:
    """Krea 2: Qwen3-VL, several of whose layers are read; the autoencoder of Qwen-Image."""
    tokenizer = words.qwen()
    return Krea2Pipeline(
        scheduler=flow(**BY_SIZE),
        vae=vaes.qwen(),
        text_encoder=encoders.qwen3_vl(tokenizer),
        tokenizer=tokenizer,
        transformer=seeded(
            lambda: Krea2Transformer2DModel(
                in_channels=64,
                num_layers=1,
                attention_head_dim=8,
                num_attention_heads=4,
                num_key_value_heads=2,
                intermediate_size=32,
                timestep_embed_dim=8,
                text_hidden_dim=16,
                num_text_layers=3,
                text_num_attention_heads=2,
                text_num_key_value_heads=1,
                text_intermediate_size=16,
                num_layerwise_text_blocks=1,
                num_refiner_text_blocks=1,
                axes_dims_rope=(4, 2, 2),
            )
        ),
        text_encoder_select_layers=(0, 1, 2),
    )


IMAGE: dict[str, Callable[[], Checkpoint]] = {
    "flux": flux,
    "flux2": flux2,
    "flux2_klein": flux2_klein,
    "qwenimage": qwenimage,
    "hidream": hidream,
    "llama": Llama,
    "sd15": sd15,
    "sdxl": sdxl,
    "sd3": sd3,
    "sana": sana,
    "pixart_sigma": pixart_sigma,
    "zimage": zimage,
    "hunyuan_image": hunyuan_image,
    "chroma": chroma,
    "krea2": krea2,
}
"""Every image checkpoint by its name, and the encoder that HiDream borrows."""
