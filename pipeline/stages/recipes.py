"""Recipes: which generations a prompt gets, and which pairs they form.

Every root prompt takes exactly one recipe, by a coin that its id tosses; every pair stays inside one
root prompt. ``wanted`` is asked by the stage that generates, ``pairs`` by the stage that pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

from pipeline.config import Recipe, Size
from pipeline.generators.base import GeneratorSpec
from pipeline.ids import content_id, seed_of, unit_interval
from pipeline.records import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A root prompt and the prompts perturbed from it."""

    root: Prompt
    perturbed: tuple[Prompt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One generation to make: the ``sample``-th of a generator for a prompt."""

    prompt: Prompt
    generator: str
    sample: int = 0

    def seed(self) -> int:
        """Return the seed that makes samples of one prompt and generator differ."""
        return seed_of(
            content_id("seed", prompt=self.prompt.id, generator=self.generator, sample=self.sample)
        )

    def generation_id(self, spec: GeneratorSpec, size: Size) -> str:
        """Return the id of the generation under the generator's present spec."""
        return content_id(
            "generation",
            prompt=self.prompt.id,
            generator=generator_id(spec),
            seed=self.seed(),
            size=asdict(size),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Two wanted generations to compare; ``expected`` is the one that should win, if that is known."""

    one: Wanted
    other: Wanted
    expected: Wanted | None = None


def generator_id(spec: GeneratorSpec) -> str:
    """Return the id of what determines a generator's pixels."""
    return content_id("generator", name=spec.name, family=spec.family, options=dict(spec.options))


def choose(recipes: Sequence[Recipe], family: Family) -> Recipe | None:
    """Return the recipe of a root prompt, None if none can be used on it."""
    usable = [recipe for recipe in recipes if recipe.kind != "perturbed_prompt" or family.perturbed]
    coin = unit_interval(content_id("recipe", prompt=family.root.id)) * sum(r.share for r in usable)
    for recipe in usable:
        coin -= recipe.share
        if coin < 0:
            return recipe
    return usable[-1] if usable else None


def matches(recipe: Recipe, family: Family, generators: Sequence[str]) -> list[Match]:
    """Return the comparisons that ``recipe`` makes of one family."""
    return KINDS[recipe.kind](recipe, family, generators)


def wanted(recipe: Recipe, family: Family, generators: Sequence[str]) -> Iterator[Wanted]:
    """Yield the generations that the comparisons need, each once."""
    seen: set[tuple[str, str, int]] = set()
    for match in matches(recipe, family, generators):
        for item in (match.one, match.other):
            key = (item.prompt.id, item.generator, item.sample)
            if key not in seen:
                seen.add(key)
                yield item


def expected_pairs(recipes: Sequence[Recipe]) -> float:
    """Return how many pairs that can ship one root prompt gives on average."""
    return sum(_pairs_each(recipe) * recipe.share for recipe in recipes if recipe.kind != "gold")


def expected_generations(recipes: Sequence[Recipe]) -> float:
    """Return how many generations one root prompt takes on average."""
    return sum(_generations_each(recipe) * recipe.share for recipe in recipes)


def _generations_each(recipe: Recipe) -> int:
    return recipe.generations if recipe.kind.startswith("across_") else 2


def _pairs_each(recipe: Recipe) -> int:
    count = _generations_each(recipe)
    return count * (count - 1) // 2


def _across_models(recipe: Recipe, family: Family, generators: Sequence[str]) -> list[Match]:
    """Rendezvous hashing: a generator more in the list changes only the prompts that it wins."""
    chosen = _by_rank(family.root, generators)[: recipe.generations]
    return _all([Wanted(prompt=family.root, generator=name) for name in chosen])


def _across_seeds(recipe: Recipe, family: Family, generators: Sequence[str]) -> list[Match]:
    name = _by_rank(family.root, generators)[0]
    samples = range(recipe.generations)
    return _all([Wanted(prompt=family.root, generator=name, sample=sample) for sample in samples])


def _perturbed_prompt(recipe: Recipe, family: Family, generators: Sequence[str]) -> list[Match]:
    """The paper's alignment recipe: same generator, original caption against an altered one."""
    del recipe
    name = _by_rank(family.root, generators)[0]
    original = Wanted(prompt=family.root, generator=name)
    altered = Wanted(prompt=_by_prompt(family), generator=name)
    return [Match(one=original, other=altered, expected=original)]


def _gold(recipe: Recipe, family: Family, generators: Sequence[str]) -> list[Match]:
    del generators
    winner = Wanted(prompt=family.root, generator=str(recipe.winner))
    loser = Wanted(prompt=family.root, generator=str(recipe.loser))
    return [Match(one=winner, other=loser, expected=winner)]


KINDS: dict[str, Callable[[Recipe, Family, Sequence[str]], list[Match]]] = {
    "across_models": _across_models,
    "across_seeds": _across_seeds,
    "perturbed_prompt": _perturbed_prompt,
    "gold": _gold,
}


def _all(generations: list[Wanted]) -> list[Match]:
    return [Match(one=one, other=other) for one, other in combinations(generations, 2)]


def _by_rank(prompt: Prompt, generators: Sequence[str]) -> list[str]:
    return sorted(generators, key=lambda name: content_id("rank", prompt=prompt.id, generator=name))


def _by_prompt(family: Family) -> Prompt:
    return min(family.perturbed, key=lambda prompt: prompt.id)
