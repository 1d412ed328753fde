"""Text encoders of the real classes: two or three layers, widths of 16 to 64, random weights."""

from __future__ import annotations

from typing import Any

from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLModel,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.weights.parts import Model, seeded


def clip(tokenizer: Any, *, projected: bool = False, length: int = 77) -> Model:
    """Return a CLIP text encoder of width 32 for ``length`` tokens, with the projection where asked."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        max_position_embeddings=length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return seeded(lambda: (CLIPTextModelWithProjection if projected else CLIPTextModel)(config))


def t5(tokenizer: Any, *, width: int = 32) -> Model:
    """Return the encoder half of a T5."""
    return seeded(lambda: T5EncoderModel(T5Config(**_t5(tokenizer, width))))


def umt5(tokenizer: Any) -> Model:
    """Return the encoder half of a UMT5 of width 32."""
    return seeded(lambda: UMT5EncoderModel(UMT5Config(**_t5(tokenizer, 32))))


def qwen25_vl(tokenizer: Any) -> Model:
    """Return a Qwen2.5-VL of width 32."""
    ids = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "mrope_section": [2, 2, 4], "rope_theta": 1e6}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": rope,
            "bos_token_id": ids("<|endoftext|>"),
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
        },
        **_visual_marks(tokenizer),
    )
    return seeded(lambda: Qwen2_5_VLForConditionalGeneration(config))


def qwen3_vl(tokenizer: Any) -> Model:
    """Return a Qwen3-VL of width 16, without the head that predicts tokens."""
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "deepstack_visual_indexes": [0],
        },
        **_visual_marks(tokenizer),
    )
    return seeded(lambda: Qwen3VLModel(config))


def qwen3(tokenizer: Any, *, width: int, layers: int, head: bool) -> Model:
    """Return a Qwen3 text model; ``head`` adds the one that predicts tokens."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        **_marks(tokenizer),
    )
    return seeded(lambda: (Qwen3ForCausalLM if head else Qwen3Model)(config))


def llama(tokenizer: Any, *, head: bool) -> Model:
    """Return a Llama of width 16; ``head`` adds the one that predicts tokens."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        **_marks(tokenizer),
    )
    return seeded(lambda: (LlamaForCausalLM if head else LlamaModel)(config))


def mistral3(tokenizer: Any) -> Model:
    """Return a Mistral3 of 30 layers: FLUX.2 reads the states after layers 10, 20 and 30."""
    config = Mistral3Config(
        text_config={
            "model_type": "mistral",
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 16,
            "max_position_embeddings": 1024,
            "num_attention_heads": 2,
            "num_hidden_layers": 30,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "sliding_window": None,
            **_marks(tokenizer),
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 16,
            "image_size": 30,
            "patch_size": 6,
            "num_channels": 3,
        },
        vision_feature_layer=-1,
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
    )
    return seeded(lambda: Mistral3ForConditionalGeneration(config))


def gemma2(tokenizer: Any) -> Model:
    """Return a Gemma 2 of width 16."""
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        head_dim=16,
        hidden_size=16,
        intermediate_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        num_key_value_heads=2,
        **_marks(tokenizer),
    )
    return seeded(lambda: Gemma2Model(config))


def _t5(tokenizer: Any, width: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "d_model": width,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": False,
        "use_cache": False,
        "tie_word_embeddings": False,
    }


def _visual_marks(tokenizer: Any) -> dict[str, Any]:
    marks = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: tokenizer.convert_tokens_to_ids(mark) for name, mark in marks.items()}


def _marks(tokenizer: Any) -> dict[str, Any]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
