"""The table of rewriters: one row each; nothing else in the project knows a rewriter's name.

``seconds`` of GPU time a prompt, its questions among them, at the limit of an H200; ``disk`` and ``memory``
(with room for many short conversations) are estimates from the numbers of parameters.
"""

from __future__ import annotations

from pipeline.rewriters.base import RewriterSpec
from pipeline.weights import Weights

SERVER = ("--max-model-len", "8192", "--enable-prefix-caching")
TEXT_ONLY = ("--limit-mm-per-prompt", '{"image": 0, "video": 0}')


_ROWS = (
    RewriterSpec(
        name="Qwen3-4B",
        weights=Weights(repo="Qwen/Qwen3-4B-Instruct-2507", disk=8.1, memory=18),
        seconds=0.03,
        server=SERVER,
    ),
    RewriterSpec(
        name="Qwen3-30B-A3B",
        weights=Weights(repo="Qwen/Qwen3-30B-A3B-Instruct-2507", disk=61, memory=74),
        seconds=0.04,
        server=SERVER,
    ),
    # The weights of the judge of that name: a cluster that serves it needs no other model.
    RewriterSpec(
        name="Qwen3-VL-30B-A3B-rewriter",
        weights=Weights(repo="Qwen/Qwen3-VL-30B-A3B-Instruct", disk=62, memory=74),
        seconds=0.04,
        server=(*SERVER, *TEXT_ONLY),
    ),
)

REWRITERS: dict[str, RewriterSpec] = {row.name: row for row in _ROWS}
