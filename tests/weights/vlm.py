"""A tiny Qwen3-VL that really judges: of two images or videos it prefers the brighter one.

The architecture is the real one, so vLLM serves it by the path that a large checkpoint takes. Its weights are
not trained but set, so that each step of the network computes something known:

- The vision tower turns a patch into its brightness b in [-1, 1]; its blocks pass everything on.
- Layer 0 averages b over the image tokens so far. At a token of the first side that is b of the first side;
  at one of the second it moves from there to the average of both.
- Layer 1 averages over all image tokens: b, and how far the average so far is ahead of b. The latter comes to
  0.35 (b of the first side - b of the second), whatever the text says and however many frames a side has.
- The output layer makes logits of both: "A" and "B" for the brighter side, "C" and "tie" when they are near,
  "yes" and "no" for bright and dark. After a label it ends; all else it says is noise, the same each time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AddedToken, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from tests.weights.words import qwen

WIDTH, HEAD, PATCH = 64, 32, 16
B, IMAGE, TEXT, SO_FAR, AHEAD, MEAN, LABEL = range(7)
"""What the first dimensions of the hidden state hold; from NOISE on, which token it is."""

NOISE = 8
FLAG = 8.0
"""Of the dimensions IMAGE and TEXT: it alone sets the norm, so that RMSNorm is linear in the rest."""

SLOW = 15
"""The slowest pair of a head's rotary dimensions: no distance that a prompt has turns it."""

TIE = 2.0
"""The logit of a tie: brightness may differ by 7 % of its range and still count as near."""

YES, NO = (MEAN, 20.0), (MEAN, -20.0)
LABELS = {"A": (AHEAD, 40.0), "B": (AHEAD, -40.0), "yes": YES, "Yes": YES, "no": NO, "No": NO}
TIES = ("C", "tie")

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if 'image' in c.type %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'video' in c.type %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(out: Path) -> None:
    """Write the checkpoint (0.5 MB) to ``out``, the same to the byte each time; needs no torchvision."""
    tokenizer = qwen()
    tokenizer.add_tokens([AddedToken(word, single_word=True) for word in ("tie", "yes", "Yes", "no", "No")])
    tokenizer.chat_template = TEMPLATE
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(0)
        model = Qwen3VLForConditionalGeneration(_config(tokenizer))
        _see(model.model.visual)
        _compare(model.model.language_model)
        _say(model, tokenizer)
    model.bfloat16().save_pretrained(out)
    tokenizer.save_pretrained(out)
    _write_processors(out)


def _config(tokenizer: Any) -> Qwen3VLConfig:
    """Return the smallest geometry that vLLM takes on CPUs (its attention wants heads of 32 or more)."""
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    image, video, start, end = (tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names)
    shared = {"hidden_size": WIDTH, "intermediate_size": WIDTH}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    text = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": HEAD,
        "max_position_embeddings": 32768,
        "rope_parameters": rope,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        **shared,
    }
    vision = {
        "depth": 2,
        "num_heads": 2,
        "patch_size": PATCH,
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": [0],
        **shared,
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )


def _see(tower: Any) -> None:
    """Make each image token of four patches carry their mean brightness and the flag IMAGE."""
    pixels = tower.patch_embed.proj.weight
    level = 4.0  # large against b: the merger's norm is then linear in b
    _clear(pixels, tower.patch_embed.proj.bias, tower.pos_embed.weight)
    pixels[0] = 1 / pixels[0].numel()
    tower.patch_embed.proj.bias[1], tower.patch_embed.proj.bias[2] = level, -level
    for block in tower.blocks:
        _clear(*block.attn.proj.parameters(), *block.mlp.linear_fc2.parameters())
    for merger in tower.deepstack_merger_list:
        _clear(*merger.linear_fc2.parameters())
    into, out = tower.merger.linear_fc1, tower.merger.linear_fc2
    _clear(*into.parameters(), *out.parameters())
    scale = level * (2 / WIDTH) ** 0.5 / 4  # undoes the norm, and takes the mean of four
    into.weight[0, ::WIDTH], into.weight[1, ::WIDTH] = scale, -scale
    out.weight[B, 0], out.weight[B, 1] = 1.0, -1.0  # gelu(x) - gelu(-x) = x
    out.bias[IMAGE] = FLAG


def _compare(text: Any) -> None:
    """Set what the two layers average, and where they leave it."""
    first, second = text.layers
    for layer in (first, second):
        _clear(layer.mlp.down_proj.weight)
        _look_at_images(layer.self_attn)
    _carry(first.self_attn, 0, {B: 1.0}, SO_FAR)
    _carry(second.self_attn, 0, {SO_FAR: 1.0, B: -1.0}, AHEAD)
    _carry(second.self_attn, 1, {B: 1.0}, MEAN)


def _look_at_images(attention: Any) -> None:
    """Make every token attend to all image tokens before it alike, and to no text if there are any."""
    queries, keys = attention.q_proj.weight, attention.k_proj.weight
    _clear(queries, keys, attention.v_proj.weight, attention.o_proj.weight)
    for head in (0, HEAD):
        queries[head + SLOW, [IMAGE, TEXT]] = 1.0
        keys[head + SLOW, IMAGE], keys[head + SLOW, TEXT] = 1.0, -1.0
    attention.q_norm.weight.fill_(1.5)
    attention.k_norm.weight.fill_(1.5)


def _carry(attention: Any, head: int, what: dict[int, float], to: int) -> None:
    """Make one head add the average of a sum of dimensions to dimension ``to``."""
    for dimension, weight in what.items():
        attention.v_proj.weight[head * HEAD, dimension] = weight
    attention.o_proj.weight[to, head * HEAD] = 1.0


def _say(model: Any, tokenizer: Any) -> None:
    """Set what tokens are, and which logits they get."""
    words, logits = model.model.language_model.embed_tokens.weight, model.lm_head.weight
    for table, spread in ((words, 1.0), (logits, 0.1)):
        _clear(table)
        table[:, NOISE:].normal_(0, spread)
    words[:, TEXT] = FLAG
    number = tokenizer.convert_tokens_to_ids
    for label in (*LABELS, *TIES):
        words[number(label), LABEL] = FLAG
        logits[number(label)] = 0.0
    for label, (dimension, gain) in LABELS.items():
        logits[number(label), dimension] = gain
    logits[[number(label) for label in TIES], TEXT] = TIE / FLAG
    logits[number("<|im_end|>"), LABEL] = 100.0


def _clear(*weights: Tensor) -> None:
    for weight in weights:
        weight.zero_()


def _write_processors(out: Path) -> None:
    """Write what the classes would save; to make the one of videos takes torchvision."""
    shared: dict[str, Any] = {
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
    }
    tokens = (2 * PATCH) ** 2  # pixels of one image token
    image: dict[str, Any] = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "size": _edges(4 * tokens, 64 * tokens),
    }
    video: dict[str, Any] = {
        "video_processor_type": "Qwen3VLVideoProcessor",
        "size": _edges(4 * tokens, 256 * tokens),
    }
    video |= {"fps": 2, "min_frames": 4, "max_frames": 16}
    (out / "preprocessor_config.json").write_text(json.dumps(shared | image, indent=1))
    (out / "video_preprocessor_config.json").write_text(json.dumps(shared | video, indent=1))


def _edges(least: int, most: int) -> dict[str, int]:
    return {"shortest_edge": least, "longest_edge": most}
