"""The public sets of prompts, one row each: which column is the text, and what else a row says.

None of their texts is here: a set is read from where its user has it, under its own licence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import nearest
from pipeline.errors import ConfigError
from pipeline.pools.imports.geneval import geneval_checks


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How one set lays out its prompts.

    ``text``: its column's name, or several that versions of the set use. ``columns``: our name of another
    column, and its own. ``scores``: columns of the set's own probabilities of unsafe text, each with the
    value from which a row is dropped. ``checks`` reads checks, as the keys of ``records.Checks``, out of a
    row's columns ``raw``. ``whole``: a text file is one prompt, not one a line. An ``evaluation`` set is held
    out of every pool.
    """

    name: str
    about: str
    text: tuple[str, ...]
    evaluation: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    checks: Callable[[Mapping[str, Any]], dict[str, Any] | None] | None = None
    raw: tuple[str, ...] = ()
    whole: bool = False


_DETOXIFY = ("toxicity", "obscene", "identity_attack", "insult", "threat", "sexual_explicit")

_ROWS = (
    Format(
        name="plain",
        about="JSONL, JSON, Parquet, CSV, TSV or one prompt a line",
        text=("text", "prompt"),
        columns={name: name for name in ("subject", "style", "licence", "checks")},
    ),
    Format(
        name="diffusiondb",
        about="DiffusionDB: metadata.parquet",
        text=("prompt",),
        scores={"prompt_nsfw": 0.5},
    ),
    Format(name="pick-a-pic", about="Pick-a-Pic v1 and v2: Parquet", text=("caption",)),
    Format(name="hpd", about="HPDv2 and v3, training part: JSON", text=("prompt",)),
    Format(
        name="vidprom",
        about="VidProM: VidProM_unique.csv",
        text=("prompt",),
        scores=dict.fromkeys(_DETOXIFY, 0.5),
    ),
    Format(
        name="geneval-style",
        about="prompts in GenEval's layout that are not GenEval's: JSONL",
        text=("prompt",),
        checks=geneval_checks,
        raw=("include",),
    ),
    Format(
        name="geneval",
        about="GenEval: evaluation_metadata.jsonl",
        text=("prompt",),
        evaluation=True,
        checks=geneval_checks,
        raw=("include",),
    ),
    Format(
        name="parti",
        about="PartiPrompts: PartiPrompts.tsv",
        text=("Prompt",),
        evaluation=True,
        columns={"subject": "Category"},
    ),
    Format(
        name="drawbench",
        about="DrawBench: CSV",
        text=("Prompts", "Prompt", "prompts", "prompt"),
        evaluation=True,
    ),
    Format(
        name="dpg",
        about="DPG-Bench: folder of text files",
        text=("prompt", "text"),
        evaluation=True,
        whole=True,
    ),
    Format(name="vbench", about="VBench: VBench_full_info.json", text=("prompt_en",), evaluation=True),
    Format(
        name="hpd-benchmark",
        about="HPSv2's benchmark: JSON lists",
        text=("prompt",),
        evaluation=True,
    ),
)

FORMATS: dict[str, Format] = {row.name: row for row in _ROWS}
"""Format name -> format."""


def format_of(name: str) -> Format:
    """Return the format called ``name``. Raises ConfigError naming the nearest."""
    if name not in FORMATS:
        raise ConfigError(f"prompts: no format {name!r}: {nearest(name, FORMATS)}")
    return FORMATS[name]
