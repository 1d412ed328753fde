"""CLIP and a predictor of aesthetics on top of it: real classes and files, 32 pixels, widths of 16 to 32."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.weights import words
from tests.weights.parts import Model, seeded

VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 24,
}
HEAD = {0: (24, 16), 2: (16, 12), 4: (12, 8), 6: (8, 4), 7: (4, 1)}
"""Place -> inputs and outputs of the linear layers of LAION's improved predictor, narrow here."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """A model with what prepares its inputs."""

    model: Model
    parts: tuple[Any, ...]

    def save_pretrained(self, folder: Path, *, safe_serialization: bool) -> None:
        """Write all files to ``folder``."""
        del safe_serialization  # transformers writes nothing else any more
        for part in (self.model, *self.parts):
            part.save_pretrained(folder)


@dataclass(frozen=True, slots=True)
class Aesthetic:
    """CLIP's half that sees, with the head in the same file, as the hub's copy has it."""

    sees: Scoring

    def save_pretrained(self, folder: Path, *, safe_serialization: bool) -> None:
        """Write all files to ``folder``."""
        self.sees.save_pretrained(folder, safe_serialization=safe_serialization)
        weights, config = folder / "model.safetensors", folder / "config.json"
        save_file({**load_file(weights), **head()}, weights, metadata={"format": "pt"})
        named = {
            "model_type": "aesthetics_predictor",
            "architectures": ["AestheticsPredictorV2Linear"],
            "auto_map": {"AutoModel": "modeling_v2.AestheticsPredictorV2Linear"},
        }
        config.write_text(json.dumps(json.loads(config.read_text()) | named))


def clip() -> Scoring:
    """Return a CLIP of both halves, its tokenizer and what prepares its pictures."""
    tokenizer = words.clip()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    return Scoring(seeded(lambda: CLIPModel(config)), (tokenizer, _prepares()))


def aesthetic() -> Aesthetic:
    """Return a predictor of aesthetics."""
    model = seeded(lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)))
    return Aesthetic(Scoring(model, (_prepares(),)))


def head() -> dict[str, torch.Tensor]:
    """Return the weights of the predictor's linear layers."""
    made = torch.Generator().manual_seed(0)
    return {
        f"layers.{place}.{kind}": torch.randn(shape, generator=made) / shape[-1] ** 0.5
        for place, (inputs, outputs) in HEAD.items()
        for kind, shape in (("weight", (outputs, inputs)), ("bias", (outputs,)))
    }


def _prepares() -> CLIPImageProcessorPil:
    edge = VISION["image_size"]
    return CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge})
