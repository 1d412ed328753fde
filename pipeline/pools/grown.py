"""Pools grown from grammars: prompt number n of a pool needs none of those before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.ids import content_id
from pipeline.pools import perturb
from pipeline.pools.content import difficulty, draw_checks
from pipeline.pools.draw import Draw
from pipeline.pools.grammar import LICENCE, Template, categories, grammar
from pipeline.pools.realise import realise
from pipeline.pools.turns import Turns
from pipeline.records import Checks, Prompt

__all__ = ["capacity", "categories", "grow", "version"]

BLOCK = 500
"""Root prompts over which the kinds of perturbed ones are balanced."""


def capacity(category: str) -> int:
    """Return how many distinct prompts the grammar surely gives. Raises ConfigError without a grammar."""
    return grammar(category).capacity


def version(category: str, perturbations: int = 0) -> str:
    """Return the version of what ``grow`` yields; it rises whenever the prompts change."""
    rules = grammar(category)
    return f"{rules.version}+{perturb.VERSION}" if perturbations else str(rules.version)


def grow(
    category: str, count: int, *, bucket_size: int, seed: int = 0, perturbations: int = 0, start: int = 0
) -> Iterator[Prompt]:
    """Yield the root prompts ``start`` to ``count``, each followed by up to ``perturbations`` perturbed ones.

    To start in the middle costs nothing for roots, and for perturbed ones at most BLOCK prompts. A
    shorter pool is a prefix of a longer one, and roots do not depend on ``perturbations``. The first,
    second ... perturbed prompts are each balanced over the kinds of change, as far as the roots allow.
    Raises ConfigError for a category without grammar and a count above its capacity.
    """
    rules = grammar(category)
    if count > rules.capacity:
        raise ConfigError(
            f"pool {category}: {count} prompts asked for, its grammar gives {rules.capacity}; ask for fewer, "
            f"or add words and templates in prompts/grammars/{category}.toml and raise its capacity"
        )
    pool = _Pool(category, seed)
    return pool.prompts(range(start, count), bucket_size, perturbations)


@dataclass(frozen=True, slots=True)
class _Root:
    """A root prompt's content, and how it is said."""

    template: Template
    wording: int
    checks: Checks
    text: str


class _Pool:
    """Prompts of one grammar and seed, by their numbers."""

    def __init__(self, category: str, seed: int) -> None:
        self._rules = grammar(category)
        self._key = (category, self._rules.version, seed)
        self._turns = Turns(self._rules, *self._key)

    def prompts(self, numbers: range, bucket_size: int, perturbations: int) -> Iterator[Prompt]:
        """Yield root prompts, each with its perturbed ones."""
        first = numbers.start // BLOCK * BLOCK if perturbations else numbers.start
        balance = _Balance(perturbations)
        for number in range(first, numbers.stop):
            if number % BLOCK == 0:
                balance = _Balance(perturbations)
            root = self._root(number)
            said = perturb.Sentence(self._rules, root.template, root.checks)
            changes = perturb.perturbed(said, *self._key, number) if perturbations else []
            chosen = balance.choose(dict(changes))
            if number >= numbers.start:
                bucket = number // bucket_size
                prompt = self._prompt(root.text, root.checks, bucket)
                yield prompt
                for kind, changed in chosen:
                    text = realise(root.template, changed, root.wording)
                    yield self._prompt(text, changed, bucket, prompt.id, kind)

    def _root(self, number: int) -> _Root:
        turn = self._turns.turn(number)
        draw = Draw(*self._key, number)
        sentence = draw.pick(draw.pick(turn.entry.sentences))
        wording = draw.below(1 << 10)
        checks = draw_checks(self._rules, turn, sentence, draw, *self._key)
        return _Root(sentence.template, wording, checks, realise(sentence.template, checks, wording))

    def _prompt(
        self,
        text: str,
        checks: Checks,
        bucket: int,
        root_id: str | None = None,
        perturbation: str | None = None,
    ) -> Prompt:
        category, rules = self._rules.category, self._rules
        own = content_id("prompt", category=category, text=text)
        subject = checks.objects[0].name if rules.subject == "object" else checks.attribute(rules.subject)
        return Prompt(
            id=own,
            root_id=root_id or own,
            category=category,
            bucket=bucket,
            text=text,
            subject=subject or "",
            style=checks.attribute("style") or "",
            checks=checks,
            perturbation=perturbation,
            source=f"grammar:{category}@{rules.version}",
            licence=LICENCE,
            difficulty=difficulty(checks),
        )


class _Balance:
    """Chooses kinds of change so that the first n of all prompts hold each as often, for every n."""

    def __init__(self, most: int) -> None:
        self._used = [Counter[str]() for _ in range(most)]

    def choose(self, changes: dict[str, Checks]) -> list[tuple[str, Checks]]:
        """Return some of ``changes``, the kind that was chosen least first; the earlier of equals."""
        chosen: list[str] = []
        for used in self._used[: len(changes)]:
            used.update(chosen)
            kind = min((each for each in changes if each not in chosen), key=used.__getitem__)
            used[kind] += 1
            chosen.append(kind)
        return [(kind, changes[kind]) for kind in chosen]
