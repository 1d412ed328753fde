"""The image families: which arguments each pipeline class of diffusers takes, and its quirks."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Mapping
from typing import Any

from pipeline.generators.diffusion.family import Embeddings, Family, Pipeline, encoded

FLUX = Family(
    pipeline="FluxPipeline",
    encode=encoded("prompt_embeds", "pooled_prompt_embeds", None),
    negative="none",  # guidance is distilled into the model
    cacheable=True,
)

FLUX2 = Family(
    pipeline="Flux2Pipeline",
    encode=encoded("prompt_embeds", None),
    negative="none",
)

FLUX2_KLEIN = Family(
    pipeline="Flux2KleinPipeline",
    encode=encoded("prompt_embeds", None),
)


def _length(embeddings: Embeddings) -> Hashable:
    """Return the prompt's length in tokens: beside a longer one it would be padded, and attention masked."""
    return int(embeddings["prompt_embeds"].shape[1])


QWEN_IMAGE = Family(
    pipeline="QwenImagePipeline",
    encode=encoded("prompt_embeds", None),
    options={"steps": "num_inference_steps", "guidance": "true_cfg_scale"},
    group=_length,
    cacheable=True,
)

HIDREAM = Family(
    pipeline="HiDreamImagePipeline",
    encode=encoded(
        "prompt_embeds_t5",
        None,
        "prompt_embeds_llama3",
        None,
        "pooled_prompt_embeds",
        None,
        do_classifier_free_guidance=False,
    ),
    axis={"prompt_embeds_llama3": 1, "negative_prompt_embeds_llama3": 1},  # the first one is the layer
    batchable=False,  # each token chooses its experts: a batch's rounding makes it choose others
    borrowed={"tokenizer_4": "AutoTokenizer", "text_encoder_4": "LlamaForCausalLM"},
)

SD3 = Family(
    pipeline="StableDiffusion3Pipeline",
    encode=encoded(
        "prompt_embeds",
        None,
        "pooled_prompt_embeds",
        None,
        prompt_2=None,
        prompt_3=None,
        do_classifier_free_guidance=False,
    ),
)

_sdxl = encoded("prompt_embeds", None, "pooled_prompt_embeds", None, do_classifier_free_guidance=False)


def _sdxl_negative(pipe: Pipeline, text: str, extra: Mapping[str, Any]) -> Embeddings:
    """Encode "" as zeros where the checkpoint says so, as the pipeline does when it is given none."""
    found = _sdxl(pipe, text, extra)
    empty = text == "" and pipe.config.force_zeros_for_empty_prompt
    return {name: value.new_zeros(value.shape) if empty else value for name, value in found.items()}


SDXL = Family(
    pipeline="StableDiffusionXLPipeline",
    encode=_sdxl,
    encode_negative=_sdxl_negative,
    denoisers=("unet",),
    load={"add_watermarker": False},  # by default it depends on what else is installed
)

SD15 = Family(
    pipeline="StableDiffusionPipeline",
    encode=encoded("prompt_embeds", None, num_images_per_prompt=1, do_classifier_free_guidance=False),
    denoisers=("unet",),
    load={"safety_checker": None, "requires_safety_checker": False},  # it blackens; categories have their own
)

_sana_plain = encoded("prompt_embeds", "prompt_attention_mask", None, None, do_classifier_free_guidance=False)


def _sana(pipe: Pipeline, text: str, extra: Mapping[str, Any]) -> Embeddings:
    """Put the instruction before the prompt that a call puts there, and ``encode_prompt`` does not."""
    default = inspect.signature(pipe.__call__).parameters["complex_human_instruction"].default
    return _sana_plain(pipe, text, {**extra, "complex_human_instruction": default})


SANA = Family(
    pipeline="SanaPipeline",
    encode=_sana,
    encode_negative=_sana_plain,
    call={"negative_prompt": None},  # its default is a text, which may not stand beside embeddings
)

PIXART_SIGMA = Family(
    pipeline="PixArtSigmaPipeline",
    encode=encoded(
        "prompt_embeds",
        "prompt_attention_mask",
        None,
        None,
        do_classifier_free_guidance=False,
        clean_caption=False,  # it rewrites prompts if other packages are installed
    ),
    call={"negative_prompt": None},
)

Z_IMAGE = Family(
    pipeline="ZImagePipeline",
    encode=encoded("prompt_embeds", None, do_classifier_free_guidance=False),
)


def _lengths(embeddings: Embeddings) -> Hashable:
    """Return the lengths of the prompt and of the text that it quotes.

    One prompt that quotes decides how all of its batch are guided; one of another length is padded.
    """
    return tuple(int(embeddings[name].sum()) for name in ("prompt_embeds_mask", "prompt_embeds_mask_2"))


HUNYUAN_IMAGE = Family(
    pipeline="HunyuanImagePipeline",
    encode=encoded("prompt_embeds", "prompt_embeds_mask", "prompt_embeds_2", "prompt_embeds_mask_2"),
    negative="text",  # given as embeddings, it would get the prompt's mask
    options={"steps": "num_inference_steps", "guidance": "distilled_guidance_scale"},
    group=_lengths,
    cacheable=True,
)

CHROMA = Family(
    pipeline="ChromaPipeline",
    encode=encoded(
        "prompt_embeds", None, "prompt_attention_mask", None, None, None, do_classifier_free_guidance=False
    ),
)

KREA2 = Family(
    pipeline="Krea2Pipeline",
    encode=encoded("prompt_embeds", "prompt_embeds_mask"),
)

FAMILIES = (
    FLUX,
    FLUX2,
    FLUX2_KLEIN,
    QWEN_IMAGE,
    HIDREAM,
    SD3,
    SDXL,
    SD15,
    SANA,
    PIXART_SIGMA,
    Z_IMAGE,
    HUNYUAN_IMAGE,
    CHROMA,
    KREA2,
)
