"""What a rewriter is to the rest of the pipeline: it says prompts anew, or says why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.records import Modality, Prompt
from pipeline.weights import Weights


class Unrewritten(StrEnum):
    """Why a prompt keeps its original text: a closed list, one reason a prompt."""

    NOT_DRAWN = "not drawn"  # not among the share that is rewritten
    UNCHECKABLE = "uncheckable"  # no strings tell whether a text says what it does
    REFUSED = "refused"  # the server would not, or could not, answer
    MALFORMED = "malformed"  # the answer is no line of prose with the phrases that must stay
    UNCHANGED = "unchanged"  # the answer is the original
    LOST = "lost"  # the answer lacks, contradicts or adds something
    PERTURBED = "perturbed"  # the change that a perturbed prompt makes could not be made to the answer
    DENIED = "denied"  # asked back, the rewriter does not find something in it
    TAKEN = "taken"  # another prompt of the bucket has this text


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriterSpec:
    """A row of the table; every field that changes answers is part of its id.

    ``licence`` is that of the weights. ``server`` are arguments of vLLM that change speed, not answers.
    """

    name: str
    weights: Weights | None
    licence: str = "Apache-2.0"
    gpus: float = 1.0
    seconds: float = 0.1
    server: tuple[str, ...] = ()
    options: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentences:
    """A root prompt and the prompts perturbed from it, to be rewritten alike."""

    root: Prompt
    perturbed: tuple[Prompt, ...]
    modality: Modality


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """New ``texts`` of a said, its root's first; or none, for ``why`` and in particular ``detail``."""

    texts: tuple[str, ...] = ()
    why: Unrewritten | None = None
    detail: str = ""
