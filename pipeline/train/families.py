"""The families of models: how each embeds prompts, encodes media and is called; one row each.

Latents are [n, channels, height, width], of Qwen-Image and Wan [n, channels, frames, height, width]; a
transformer that wants them as tokens gets them so inside of ``predict``, and errors are over latents always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.train.noise import TIMESTEPS

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.train.settings import FamilyName

Condition = dict[str, "Tensor"]
"""What a denoiser is told of prompts, by the names of its arguments."""

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
UNET_BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D")
BOTH_STREAMS = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """``embed`` one prompt with a pipeline; ``encode`` [n, 3, frames, height, width] in [-1, 1] with its VAE;
    ``predict`` with its denoiser from noisy latents, timesteps (see ``noise.Process``), condition, guidance.

    ``blocks`` are the classes that are compiled, ``dynamic`` None where prompts of all lengths go into them.
    ``asked`` makes arguments of a call of the pipeline from guidance and frames.
    """

    pipeline: str
    denoiser: str
    adapted: tuple[str, ...]
    embed: Callable[[Any, str], Condition]
    encode: Callable[[Any, Tensor], Tensor]
    predict: Callable[[Any, Tensor, Tensor, Condition, float], Tensor]
    blocks: tuple[str, ...]
    dynamic: bool | None = False
    asked: Callable[[float, int], dict[str, Any]] = lambda guidance, _: {"guidance_scale": guidance}


def _embed_sd15(pipe: Any, prompt: str) -> Condition:
    embeds, _ = pipe.encode_prompt([prompt], pipe.text_encoder.device, 1, False)
    return {"encoder_hidden_states": embeds}


def _embed_sdxl(pipe: Any, prompt: str) -> Condition:
    embeds, _, pooled, _ = pipe.encode_prompt([prompt], do_classifier_free_guidance=False)
    return {"encoder_hidden_states": embeds, "text_embeds": pooled}


def _embed_sd3(pipe: Any, prompt: str) -> Condition:
    embeds, _, pooled, _ = pipe.encode_prompt([prompt], None, None, do_classifier_free_guidance=False)
    return {"encoder_hidden_states": embeds, "pooled_projections": pooled}


def _embed_flux(pipe: Any, prompt: str) -> Condition:
    embeds, pooled, _ = pipe.encode_prompt([prompt])
    return {"encoder_hidden_states": embeds, "pooled_projections": pooled}


def _embed_qwen(pipe: Any, prompt: str) -> Condition:
    import torch

    embeds, mask = pipe.encode_prompt([prompt])
    whole = torch.ones(embeds.shape[:2], dtype=torch.int64, device=embeds.device)
    return {"encoder_hidden_states": embeds, "encoder_hidden_states_mask": whole if mask is None else mask}


def _embed_wan(pipe: Any, prompt: str) -> Condition:
    embeds, _ = pipe.encode_prompt([prompt], do_classifier_free_guidance=False, max_sequence_length=512)
    return {"encoder_hidden_states": embeds}


def _encode_image(vae: Any, media: Tensor) -> Tensor:
    latents = vae.encode(media.squeeze(2)).latent_dist.mode()
    moved: Tensor = (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    return moved


def _encode_frames(vae: Any, media: Tensor) -> Tensor:
    import torch

    latents = vae.encode(media).latent_dist.mode()
    mean, std = (
        torch.tensor(values, device=latents.device, dtype=latents.dtype).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    moved: Tensor = (latents - mean) / std
    return moved


def _predict_sd15(model: Any, noisy: Tensor, time: Tensor, given: Condition, _guidance: float) -> Tensor:
    made: Tensor = model(noisy, time, **given, return_dict=False)[0]
    return made


def _predict_sdxl(model: Any, noisy: Tensor, time: Tensor, given: Condition, _guidance: float) -> Tensor:
    import torch

    height, width = (8 * side for side in noisy.shape[-2:])
    # Original size, corner of the crop, size: pairs are trained on as if they had been this large.
    sizes = torch.tensor([height, width, 0, 0, height, width]).to(noisy, non_blocking=True)
    added = {"text_embeds": given["text_embeds"], "time_ids": sizes.repeat(len(noisy), 1)}
    text = given["encoder_hidden_states"]
    made: Tensor = model(noisy, time, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False)[
        0
    ]
    return made


def _predict_plain(model: Any, noisy: Tensor, time: Tensor, given: Condition, _guidance: float) -> Tensor:
    made: Tensor = model(hidden_states=noisy, timestep=time, **given, return_dict=False)[0]
    return made


def _predict_flux(model: Any, noisy: Tensor, time: Tensor, given: Condition, guidance: float) -> Tensor:
    import torch

    _, _, height, width = noisy.shape
    places = torch.zeros(height // 2, width // 2, 3, device=noisy.device, dtype=noisy.dtype)
    places[..., 1] += torch.arange(height // 2, device=noisy.device)[:, None]
    places[..., 2] += torch.arange(width // 2, device=noisy.device)[None, :]
    words = torch.zeros(given["encoder_hidden_states"].shape[1], 3, device=noisy.device, dtype=noisy.dtype)
    made = model(
        hidden_states=_tokens(noisy),
        timestep=time / TIMESTEPS,
        guidance=torch.full_like(time, guidance),
        img_ids=places.flatten(0, 1),
        txt_ids=words,
        **given,
        return_dict=False,
    )[0]
    return _untokens(made, height, width)


def _predict_qwen(model: Any, noisy: Tensor, time: Tensor, given: Condition, _guidance: float) -> Tensor:
    height, width = noisy.shape[-2:]
    made = model(
        hidden_states=_tokens(noisy.squeeze(2)),
        timestep=time / TIMESTEPS,
        img_shapes=[[(1, height // 2, width // 2)]] * len(noisy),
        **given,
        return_dict=False,
    )[0]
    return _untokens(made, height, width).unsqueeze(2)


def _tokens(latents: Tensor) -> Tensor:
    """Return [n, channels, height, width] as tokens of 2x2: [n, height/2 width/2, 4 channels]."""
    return latents.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def _untokens(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo ``_tokens``."""
    patches = tokens.reshape(len(tokens), height // 2, width // 2, -1, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, height, width)


FAMILIES: Mapping[FamilyName, Family] = {
    "sd15": Family(
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        adapted=ATTENTION,
        embed=_embed_sd15,
        encode=_encode_image,
        predict=_predict_sd15,
        blocks=UNET_BLOCKS,
    ),
    "sdxl": Family(
        pipeline="StableDiffusionXLPipeline",
        denoiser="unet",
        adapted=ATTENTION,
        embed=_embed_sdxl,
        encode=_encode_image,
        predict=_predict_sdxl,
        blocks=UNET_BLOCKS,
    ),
    "sd3": Family(
        pipeline="StableDiffusion3Pipeline",
        denoiser="transformer",
        adapted=BOTH_STREAMS,
        embed=_embed_sd3,
        encode=_encode_image,
        predict=_predict_plain,
        blocks=("JointTransformerBlock",),
    ),
    "flux": Family(
        pipeline="FluxPipeline",
        denoiser="transformer",
        adapted=BOTH_STREAMS,
        embed=_embed_flux,
        encode=_encode_image,
        predict=_predict_flux,
        blocks=("FluxTransformerBlock", "FluxSingleTransformerBlock"),
    ),
    "qwen_image": Family(
        pipeline="QwenImagePipeline",
        denoiser="transformer",
        adapted=BOTH_STREAMS,
        embed=_embed_qwen,
        encode=_encode_frames,
        predict=_predict_qwen,
        blocks=("QwenImageTransformerBlock",),
        dynamic=None,
        asked=lambda guidance, _: {"true_cfg_scale": guidance, "negative_prompt": " "},
    ),
    "wan": Family(
        pipeline="WanPipeline",
        denoiser="transformer",
        adapted=ATTENTION,
        embed=_embed_wan,
        encode=_encode_frames,
        predict=_predict_plain,
        blocks=("WanTransformerBlock",),
        asked=lambda guidance, frames: {"guidance_scale": guidance, "num_frames": frames},
    ),
}
"""Every family by its name in a training file."""
