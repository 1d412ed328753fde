"""Recipes: which generations a prompt gets, and which pairs they form.

Every root prompt takes exactly one recipe, by a coin that its id tosses; every pair stays inside one
root prompt. ``wanted`` is asked by the stage that generates, ``matches`` by the stage that pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

from pipeline.config import Cast, Recipe, Size
from pipeline.generators.base import GeneratorSpec
from pipeline.ids import Part, content_id, seed_of, unit_interval
from pipeline.records import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A root prompt and the prompts perturbed from it."""

    root: Prompt
    perturbed: tuple[Prompt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One generation to make: the ``sample``-th of a generator for a prompt.

    ``source`` is the generation that it starts from: a first frame, or what is to be degraded.
    """

    prompt: Prompt
    generator: str
    sample: int = 0
    source: Wanted | None = None

    def seed(self) -> int:
        """Return the seed that makes samples of one prompt and generator differ."""
        return seed_of(
            content_id("seed", prompt=self.prompt.id, generator=self.generator, sample=self.sample)
        )

    def size(self, specs: Mapping[str, GeneratorSpec], asked: Size) -> Size:
        """Return what is made where the category asks for ``asked``.

        A degraded copy has the size of its source; an image for a video is one frame of it.
        """
        spec = specs[self.generator]
        if self.source and spec.starts_from == "own":
            return self.source.size(specs, asked)
        if spec.modality == "image":
            asked = Size(width=asked.width, height=asked.height)
        return spec.size(asked)

    def generation_id(self, specs: Mapping[str, GeneratorSpec], asked: Size) -> str:
        """Return the id of the generation under the present specs of its generator and its source's."""
        source: dict[str, Part] = {}
        if self.source:
            source = {"source": self.source.generation_id(specs, asked)}
        return content_id(
            "generation",
            prompt=self.prompt.id,
            generator=generator_id(specs[self.generator]),
            seed=self.seed(),
            size=asdict(self.size(specs, asked)),
            **source,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Two wanted generations to compare; ``expected`` is the one that should win, if that is known."""

    one: Wanted
    other: Wanted
    expected: Wanted | None = None


def generator_id(spec: GeneratorSpec) -> str:
    """Return the id of what determines a generator's pixels; where its weights lie is no part of it."""
    weights: dict[str, Part] = {}
    if spec.weights:
        used = [spec.weights, spec.weights.borrowed]
        weights = {"weights": [[each.repo, each.revision] for each in used if each]}
    return content_id("generator", name=spec.name, family=spec.family, options=dict(spec.options), **weights)


def generators_of(cast: Cast) -> tuple[str, ...]:
    """Return every generator that the recipes may call: those of the cast, then the recipes' own."""
    own = {name for recipe in cast.recipes for name in (*recipe.losers, *recipe.first_frames)}
    own |= {name for recipe in cast.recipes for name in (recipe.winner, recipe.loser) if name}
    return (*cast.generators, *sorted(own.difference(cast.generators)))


def candidates(recipe: Recipe, generators: Sequence[str], specs: Mapping[str, GeneratorSpec]) -> list[str]:
    """Return those of the cast's ``generators`` that ``recipe`` can pick from."""
    start = "image" if recipe.kind == "shared_first_frame" else "nothing"
    return [name for name in generators if specs[name].starts_from == start]


def choose(recipes: Sequence[Recipe], family: Family) -> Recipe | None:
    """Return the recipe of a root prompt, None if none can be used on it."""
    usable = [recipe for recipe in recipes if recipe.kind != "perturbed_prompt" or family.perturbed]
    coin = unit_interval(content_id("recipe", prompt=family.root.id)) * sum(r.share for r in usable)
    for recipe in usable:
        coin -= recipe.share
        if coin < 0:
            return recipe
    return usable[-1] if usable else None


def matches(
    recipe: Recipe, family: Family, generators: Sequence[str], specs: Mapping[str, GeneratorSpec]
) -> list[Match]:
    """Return the comparisons that ``recipe`` makes of one family; ``generators`` are the cast's."""
    return KINDS[recipe.kind](recipe, family, candidates(recipe, generators, specs))


def wanted(
    recipe: Recipe, family: Family, generators: Sequence[str], specs: Mapping[str, GeneratorSpec]
) -> Iterator[Wanted]:
    """Yield the generations that the comparisons need, each once, a source before what starts from it."""
    seen: set[Wanted] = set()
    for match in matches(recipe, family, generators, specs):
        for side in (match.one, match.other):
            for item in _with_sources(side):
                if item not in seen:
                    seen.add(item)
                    yield item


def expected_pairs(recipes: Sequence[Recipe]) -> float:
    """Return how many pairs that can ship one root prompt gives on average."""
    return sum(_pairs_each(recipe) * recipe.share for recipe in recipes if recipe.kind != "gold")


def expected_generations(recipes: Sequence[Recipe]) -> float:
    """Return how many generations one root prompt takes on average, sources among them."""
    return sum(_generations_each(recipe) * recipe.share for recipe in recipes)


def expected_saved(recipes: Sequence[Recipe]) -> float:
    """Return how many generations more it would be if no two pairs shared any."""
    return sum(
        (_pairs_each(recipe) * _generations_each(recipe, compared=2) - _generations_each(recipe))
        * recipe.share
        for recipe in recipes
    )


def expected_of_each(cast: Cast, specs: Mapping[str, GeneratorSpec]) -> dict[str, float]:
    """Return how many generations of each generator one root prompt takes on average."""
    found = dict.fromkeys(generators_of(cast), 0.0)
    for recipe in cast.recipes:
        for names, count in _calls(recipe, candidates(recipe, cast.generators, specs), recipe.generations):
            for name in names:
                found[name] += recipe.share * count / len(names)
    return found


def _calls(recipe: Recipe, generators: Sequence[str], compared: int) -> list[tuple[Sequence[str], int]]:
    """Return the generators that a recipe picks from, each as often as another, and how many it makes."""
    if recipe.kind in ("across_models", "across_seeds"):
        return [(generators, compared)]
    if recipe.kind == "shared_first_frame":
        return [(recipe.first_frames, 1), (generators, compared)]
    if recipe.kind == "perturbed_prompt":
        return [(generators, 2)]
    if recipe.losers:
        return [(generators, 1), (recipe.losers, 1)]
    return [([str(recipe.winner)], 1), ([str(recipe.loser)], 1)]


def _generations_each(recipe: Recipe, compared: int | None = None) -> int:
    return sum(count for _, count in _calls(recipe, (), compared or recipe.generations))


def _pairs_each(recipe: Recipe) -> int:
    if recipe.kind not in ("across_models", "across_seeds", "shared_first_frame"):
        return 1
    return recipe.generations * (recipe.generations - 1) // 2


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


def _degraded(recipe: Recipe, family: Family, generators: Sequence[str]) -> list[Match]:
    """The winner as it was generated, the loser made worse from it: the order is known."""
    root = family.root
    winner = Wanted(prompt=root, generator=_by_rank(root, generators)[0])
    loser = Wanted(prompt=root, generator=_by_rank(root, recipe.losers)[0], source=winner)
    return [Match(one=winner, other=loser, expected=winner)]


def _shared_first_frame(recipe: Recipe, family: Family, generators: Sequence[str]) -> list[Match]:
    """Videos that begin alike, so that they differ in how they move and not in what they show."""
    root = family.root
    frame = Wanted(prompt=root, generator=_by_rank(root, recipe.first_frames)[0])
    chosen = _by_rank(root, generators)[: recipe.generations]
    return _all([Wanted(prompt=root, generator=name, source=frame) for name in chosen])


def _gold(recipe: Recipe, family: Family, generators: Sequence[str]) -> list[Match]:
    if recipe.losers:
        return _degraded(recipe, family, generators)
    winner = Wanted(prompt=family.root, generator=str(recipe.winner))
    loser = Wanted(prompt=family.root, generator=str(recipe.loser))
    return [Match(one=winner, other=loser, expected=winner)]


KINDS: dict[str, Callable[[Recipe, Family, Sequence[str]], list[Match]]] = {
    "across_models": _across_models,
    "across_seeds": _across_seeds,
    "perturbed_prompt": _perturbed_prompt,
    "degraded": _degraded,
    "shared_first_frame": _shared_first_frame,
    "gold": _gold,
}


def _with_sources(item: Wanted) -> Iterator[Wanted]:
    if item.source:
        yield from _with_sources(item.source)
    yield item


def _all(generations: list[Wanted]) -> list[Match]:
    return [Match(one=one, other=other) for one, other in combinations(generations, 2)]


def _by_rank(prompt: Prompt, generators: Sequence[str]) -> list[str]:
    return sorted(generators, key=lambda name: content_id("rank", prompt=prompt.id, generator=name))


def _by_prompt(family: Family) -> Prompt:
    return min(family.perturbed, key=lambda prompt: prompt.id)
