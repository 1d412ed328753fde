"""Pools grown from grammars: as many distinct prompts as asked for, in an order balanced throughout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.ids import content_id
from pipeline.pools import perturb
from pipeline.pools.content import draw_checks
from pipeline.pools.draw import Draw, in_turn
from pipeline.pools.grammar import LICENCE, Grammar, Template, categories, grammar
from pipeline.pools.realise import realise
from pipeline.records import Checks, Prompt

__all__ = ["capacity", "categories", "grow", "version"]

_ATTEMPTS = 96
_ATTEMPTS_A_TURN = 8


def capacity(category: str) -> int:
    """Return how many distinct prompts the grammar surely gives. Raises ConfigError without a grammar."""
    return grammar(category).capacity


def version(category: str, perturbations: int = 0) -> str:
    """Return the version of what ``grow`` yields; it rises whenever the prompts change."""
    rules = grammar(category)
    return f"{rules.version}+{perturb.VERSION}" if perturbations else str(rules.version)


def grow(
    category: str, count: int, *, bucket_size: int, seed: int = 0, perturbations: int = 0
) -> Iterator[Prompt]:
    """Yield ``count`` distinct root prompts, each followed by up to ``perturbations`` perturbed ones.

    A shorter pool is a prefix of a longer one, and roots do not depend on ``perturbations``. The first
    perturbed prompts are balanced over the kinds of change, as far as the roots allow them.
    Raises ConfigError for a category without grammar and a count above its capacity.
    """
    rules = grammar(category)
    if count > rules.capacity:
        raise ConfigError(
            f"pool {category}: {count} prompts asked for, its grammar gives {rules.capacity}; ask for fewer, "
            f"or add words and templates in prompts/grammars/{category}.toml and raise its capacity"
        )
    return _grow(_Pool(rules, seed), count, bucket_size, perturbations)


def _grow(pool: _Pool, count: int, bucket_size: int, perturbations: int) -> Iterator[Prompt]:
    for index in range(count):
        root, variants = pool.next(index)
        bucket = index // bucket_size
        prompt = _prompt(pool.rules, root, bucket)
        yield prompt
        for kind, variant in variants[:perturbations]:
            yield _prompt(pool.rules, variant, bucket, root_id=prompt.id, perturbation=kind)


@dataclass(frozen=True, slots=True)
class _Said:
    text: str
    subject: str
    style: str
    checks: Checks


class _Pool:
    """Prompts of one grammar, one after the other, none like an earlier one."""

    def __init__(self, rules: Grammar, seed: int) -> None:
        from pipeline.pools.near import NearDuplicates

        self.rules = rules
        self._key = (rules.category, rules.version, seed)
        self._near = NearDuplicates()
        self._texts: set[str] = set()
        self._first: Counter[str] = Counter()

    def next(self, index: int) -> tuple[_Said, list[tuple[str, _Said]]]:
        """Return the root prompt number ``index`` and all of its perturbed ones."""
        rules = self.rules
        subject = in_turn(rules.subjects, index, *self._key, "subject")
        for attempt in range(_ATTEMPTS):
            draw = Draw(*self._key, index, attempt)
            turn = index + attempt // _ATTEMPTS_A_TURN
            style = in_turn(rules.styles, turn, *self._key, "style")
            template = draw.pick(in_turn(rules.templates, turn, *self._key, "template"))
            checks = draw_checks(rules, template, subject, style, draw)
            text = realise(template, checks)
            if text not in self._texts and self._near.add(checks):
                self._texts.add(text)
                root = _Said(text, subject, style, checks)
                return root, self._variants(template, root, index)
        raise ConfigError(
            f"pool {rules.category}: no new prompt after {index} in {_ATTEMPTS} attempts; "
            f"lower the capacity in prompts/grammars/{rules.category}.toml or add words"
        )

    def _variants(self, template: Template, root: _Said, index: int) -> list[tuple[str, _Said]]:
        """All perturbed prompts, kept or not: later roots must not depend on how many are wanted."""
        variants = []
        said = perturb.Sentence(self.rules, template, root.checks)
        for kind, changed in perturb.perturbed(said, *self._key, index):
            text = realise(template, changed)
            if text not in self._texts:
                self._texts.add(text)
                named = changed.objects[0].name if self.rules.subject == "object" else root.subject
                variants.append((kind, _Said(text, named, root.style, changed)))
        variants.sort(key=lambda variant: self._first[variant[0]])
        self._first.update(kind for kind, _ in variants[:1])
        return variants


def _prompt(
    rules: Grammar, said: _Said, bucket: int, root_id: str | None = None, perturbation: str | None = None
) -> Prompt:
    own = content_id("prompt", category=rules.category, text=said.text)
    return Prompt(
        id=own,
        root_id=root_id or own,
        category=rules.category,
        bucket=bucket,
        text=said.text,
        subject=said.subject,
        style=said.style,
        checks=said.checks,
        perturbation=perturbation,
        source=f"grammar:{rules.category}@{rules.version}",
        licence=LICENCE,
    )
