"""The report on pools of prompts: a table's rows and a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from pipeline.config import nearest
from pipeline.errors import ConfigError
from pipeline.pools.diversity import RADIUS, SAMPLE, Diversity, effective, measured
from pipeline.pools.given import Given, given
from pipeline.records import Prompt
from pipeline.report.prompts import Chart, Covered, Figure, Line, PoolView, render
from pipeline.runners.status import parts, read_lanes, read_settings
from pipeline.stages.base import read_part
from pipeline.stages.prompts import PromptsStage
from pipeline.storage import Store, open_store

COLUMNS = 80
"""Most columns of a chart."""

_BINS = 25
_INSTALL = "{} is not installed: pip install 'vipo[pools]' for near duplicates, distances and coverage"


def of_run(run: str, categories: Sequence[str] = ()) -> list[Given]:
    """Return the prompts that each category of a run has drawn so far. Raises ConfigError, StorageError."""
    store = open_store(run)
    found: dict[str, Given] = {}
    for lane in read_lanes(read_settings(store), store):
        name = lane.category.name
        found[name] = Given(name=name, uri=store.uri, prompts=partial(_prompts, lane.prompts, store))
    for name in categories:
        if name not in found:
            raise ConfigError(f"{store.uri}: no category {name!r}: {nearest(name, found)}")
    return [found[name] for name in categories or found]


def _prompts(stage: PromptsStage, store: Store) -> Iterator[Prompt]:
    rows = (prompt for key in parts(stage, store) for prompt in read_part(Prompt, key, store))
    return (prompt for prompt in rows if prompt.bucket < stage.bucket_count)  # a part holds more


def samples(names: Iterable[str], count: int | None = None, *, size: int = SAMPLE) -> dict[str, list[str]]:
    """Return the samples of other pools, by name; ``names`` and ``count`` as ``given`` takes them."""
    return {name: measured(given(name, count).prompts(), size).sample for name in names}


def view(
    pool: Given,
    others: Mapping[str, Sequence[str]] | None = None,
    *,
    sample: int = SAMPLE,
    radius: float = RADIUS,
) -> PoolView:
    """Measure one pool, and how it and the samples of ``others`` cover each other.

    Raises ConfigError for a pool without usable prompts.
    """
    found = measured(pool.prompts(), sample).measure(others, radius)
    if not found.prompts:
        raise ConfigError(f"{pool.name}: no usable prompt: {_first(found.failed) or 'the pool is empty'}")
    left_out = {**pool.dropped, **found.failed}
    return PoolView(
        name=pool.name,
        about=pool.uri or "grown from its grammar",
        prompts=found.prompts,
        figures=tuple(_figures(found, left_out)),
        charts=tuple(_charts(found)),
        covered=tuple(_covered(found)),
        radius=radius,
        dropped=left_out,
        lines=tuple(
            Line(text=each.text, subject=each.subject, style=each.style, difficulty=each.difficulty)
            for each in found.shown
        ),
    )


def page(views: Sequence[PoolView]) -> str:
    """Return the page about pools."""
    created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    title = views[0].name if len(views) == 1 else f"{len(views)} pools of prompts"
    return render(views, title=title, created=created)


def _first(failed: Mapping[str, int]) -> str | None:
    return next(iter(failed), None)


def _figures(found: Diversity, left_out: Mapping[str, int]) -> Iterator[Figure]:
    sample = (
        f"the {found.sampled:,} prompts of least hash" if found.sampled < found.prompts else "all prompts"
    )
    yield _effective("Subjects", found.subjects)
    yield _effective("Styles", found.styles)
    yield Figure(
        name="Largest share",
        value=f"{_largest(found.subjects):.2%} / {_largest(found.styles):.2%}",
        about="The share of the most frequent subject, and of the most frequent style.",
    )
    yield Figure(
        name="Distinct-1/2/3",
        value="/".join(f"{share:.3f}" for share in found.distinct),
        about=f"Different words, pairs and triples of words, as a share of all of them: {sample}.",
    )
    yield _measured(
        "Near duplicates",
        None if found.near is None else f"{found.near:.2%}",
        f"Prompts with nearly the words of another of the whole pool (Jaccard 0.7 or more): {sample}.",
        found.missing,
    )
    yield _measured(
        "Nearest",
        None if found.neighbours is None else f"{found.neighbours.mean:.3f}",
        "Mean cosine distance to the nearest other prompt, by embedding (all-MiniLM-L6-v2): "
        f"{sample}, among themselves.",
        found.missing,
    )
    yield Figure(
        name="Left out",
        value=f"{sum(left_out.values()):,}",
        about="Rows that cleaning dropped or that cannot be used; each pool says why.",
    )


def _effective(name: str, counts: Mapping[str, int]) -> Figure:
    unsaid = counts.get("", 0) == sum(counts.values())
    return Figure(
        name=name,
        value="not said" if unsaid else f"{effective(counts.values()):,.1f} of {len(counts):,}",
        about=f"Effective number of {name.lower()} (exp of the entropy): so many of one size are as diverse.",
    )


def _measured(name: str, value: str | None, about: str, missing: str) -> Figure:
    if value is None:
        return Figure(name=name, value="\u2013", about=about, missing=_INSTALL.format(missing))
    return Figure(name=name, value=value, about=about)


def _largest(counts: Mapping[str, int]) -> float:
    return max(counts.values()) / sum(counts.values())


def _charts(found: Diversity) -> Iterator[Chart]:
    yield _histogram("Length", "Words of a prompt.", found.lengths, "words")
    if len(found.difficulties) > 1:
        about = "Things of a prompt that a picture must get right; 0: not known."
        yield _histogram("Difficulty", about, found.difficulties, "")
    for name, counts in (("subject", found.subjects), ("style", found.styles)):
        if len(counts) > 1:
            yield _ranked(name, counts)
    if found.neighbours is not None:
        yield _distances(found.neighbours.distances)


def _histogram(title: str, about: str, counts: Mapping[int, int], unit: str) -> Chart:
    low, high = min(counts), max(counts)
    width = -(-(high - low + 1) // COLUMNS)
    starts = range(low, high + 1, width)
    columns = [
        (
            f"{start} {unit}" if width == 1 else f"{start} to {start + width - 1} {unit}",
            sum(counts.get(value, 0) for value in range(start, start + width)),
        )
        for start in starts
    ]
    return Chart(title=title, about=about, columns=columns, ends=(f"{low} {unit}", f"{high} {unit}"))


def _ranked(name: str, counts: Mapping[str, int]) -> Chart:
    """Largest first; where there are more than fit, a column is the mean of neighbours in rank."""
    ranked = Counter(counts).most_common()
    width = -(-len(ranked) // COLUMNS)
    groups = [ranked[start : start + width] for start in range(0, len(ranked), width)]
    columns = [
        (group[0][0] or "(not said)", sum(count for _, count in group) / len(group)) for group in groups
    ]
    about = f"Prompts of each {name}, largest first." if width == 1 else f"Mean of {width} {name}s in turn."
    return Chart(
        title=f"Prompts by {name}",
        about=about,
        columns=columns,
        ends=(ranked[0][0] or "(not said)", ranked[-1][0] or "(not said)"),
    )


def _distances(distances: Iterable[float]) -> Chart:
    bins = Counter(min(_BINS - 1, int(distance * _BINS)) for distance in distances)
    return Chart(
        title="Distance to the nearest other prompt",
        about="Cosine distance by embedding: 0 says the same, above 0.5 hardly related.",
        columns=[(f"{place / _BINS:.2f} and up", bins[place]) for place in range(_BINS)],
        ends=("0", "1 and more"),
    )


def _covered(found: Diversity) -> Iterator[Covered]:
    for each in found.neighbours.coverages if found.neighbours else ():
        yield Covered(name=each.name, covered=each.covered, returned=each.returned)
