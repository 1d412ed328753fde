"""Tokenizers of the real classes over one small vocabulary, the same in every process.

The trainers of the tokenizers package break ties by hash order, so the merges are learnt here.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AddedToken,
    ByT5Tokenizer,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    T5Tokenizer,
)

COMMON = """
a an and are as at behind below blue by camera cat cats colour dog for four from glass green grey hat
holding house in is it left light man near next night of on one orange over painting people person photo
portrait red right road says sign sitting sky small snow street table text that the three to tree two under
walks water white with woman wooden yellow
"""
OF_TEMPLATES = """
action actions angles appearance aspects assistant atmosphere background behaviors changes color content
describe description detail detailed detailing environment events following generate given image images main
model movement movements object objects perspective physical prompt prompts quality quantity relationships
shape size spatial structured style system temporal texture theme transitions used user video visual you
your
"""
WORDS = tuple(sorted({*COMMON.split(), *OF_TEMPLATES.split()}))
"""What is one token each: common words of prompts and of the templates that pipelines put around them.

Other text falls to shorter pieces. Without the templates' words a template would fill the model's whole
length and no word of a prompt would be left.
"""

LETTERS = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))
SPACE = "Ġ"
IMAGE_MARKS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
QWEN_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *IMAGE_MARKS, "<think>", "</think>")
LLAMA_MARKS = ("<pad>", "<s>", "</s>", "[IMG]", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
CHAT = (
    "{% for m in messages %}<OPEN>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endif %}<CLOSE>\n{% endfor %}"
    "{% if add_generation_prompt %}<OPEN>assistant\n{% endif %}"
)


def clip() -> CLIPTokenizer:
    """Return a CLIP tokenizer of 77 tokens; as in the real one the end mark has the highest id."""
    vocab, merges = _spelled(suffix="</w>")
    for mark in ("<|startoftext|>", "<|endoftext|>"):
        vocab[mark] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def t5(length: int = 512) -> T5Tokenizer:
    """Return a T5 tokenizer of at most ``length`` tokens."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -6.0)]
    pieces += [(chr(code), -10.0) for code in range(33, 127)] + [(f"▁{word}", -5.0) for word in WORDS]
    return T5Tokenizer(vocab=pieces, extra_ids=10, model_max_length=length)


def byt5() -> ByT5Tokenizer:
    """Return the tokenizer of bytes, which needs no vocabulary."""
    return ByT5Tokenizer()


def qwen() -> Qwen2Tokenizer:
    """Return a Qwen tokenizer with its chat marks and template."""
    vocab, merges = _spelled()
    for mark in QWEN_MARKS:
        vocab[mark] = len(vocab)
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        model_max_length=4096,
        chat_template=_chat("<|im_start|>", "<|im_end|>"),
    )
    tokenizer.add_tokens([AddedToken(mark, special=True) for mark in QWEN_MARKS])
    return tokenizer


def llama() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer that opens with <s>, for Llama, Mistral and Gemma encoders."""
    pieces, merges = _spelled()
    vocab = {piece: index for index, piece in enumerate((*LLAMA_MARKS, *pieces))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",  # noqa: S106 no password, as below
        eos_token="</s>",  # noqa: S106
        pad_token="<pad>",  # noqa: S106
        padding_side="right",
        model_max_length=1024,
        chat_template=_chat("<s>", "</s>"),
    )
    tokenizer.add_tokens([AddedToken(mark, special=True) for mark in LLAMA_MARKS])
    return tokenizer


def _chat(opening: str, closing: str) -> str:
    return CHAT.replace("<OPEN>", opening).replace("<CLOSE>", closing)


def _spelled(suffix: str = "") -> tuple[dict[str, int], list[Any]]:
    """Return vocabulary and merges that spell WORDS: ``suffix`` ends a word, else a space opens one."""
    if suffix:
        words = tuple((*word[:-1], word[-1] + suffix) for word in WORDS)
        letters = (*LETTERS, *(letter + suffix for letter in LETTERS))
    else:
        words = tuple((*start, *word) for word in WORDS for start in ((), (SPACE,)))
        letters = LETTERS
    merges = _learnt(words)
    pieces = dict.fromkeys((*letters, *("".join(pair) for pair in merges)))
    return {piece: index for index, piece in enumerate(pieces)}, list(merges)


@cache
def _learnt(words: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, str], ...]:
    """Return byte-pair merges (Sennrich et al. 2016) until every word is one piece; ties go by spelling."""
    merges: list[tuple[str, str]] = []
    rest = list(words)
    while pairs := Counter(pair for word in rest for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        rest = [_joined(word, best) for word in rest]
    return tuple(merges)


def _joined(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)
