"""The report page: one HTML file that needs nothing else, no network and no script."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined

from pipeline.records import ORDERS, Reason, Verdict
from pipeline.report.cards import LONGEST_ANSWER, REASONS, Card, card
from pipeline.report.data import ReportInput
from pipeline.report.sheets import Sample, Sampler, complete
from pipeline.report.statistics import ENOUGH, CategoryCounts, Share, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Whether the panel hears a judge, and why."""

    label: str
    because: str
    style: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One category of the page."""

    name: str
    quota: int
    counts: CategoryCounts
    kept: list[Card]
    dropped: list[Card]

    @property
    def at_quota(self) -> bool:
        """Whether as many pairs are kept as were wanted."""
        return self.counts.kept >= self.quota > 0

    @property
    def segments(self) -> list[tuple[str, str, int]]:
        """(style, name, pairs) of every outcome, also those that never came up."""
        dropped = [(str(reason), REASONS[reason][0], self.counts.dropped[reason]) for reason in REASONS]
        return [("kept", "Kept", self.counts.kept), *dropped, ("pending", "Pending", self.counts.pending)]

    def standing(self, judge: str) -> Standing:
        """Say whether the panel hears a judge, by what gold pairs show."""
        known = self.counts.calibrations.get(judge)
        if known is None:
            return Standing(label="heard", because="never tried on gold pairs")
        votes = known.right + known.wrong
        if known.abstains:
            low, high = _percent(known.low), _percent(known.high)
            verdict = "worse than chance" if known.high < 0.5 else "chance is not ruled out"
            because = f"{known.right} of {votes} gold votes right ({low} to {high}): {verdict}"
            return Standing(label="\u25b2 abstains", because=because, style="alert")
        if votes < ENOUGH:
            return Standing(label="heard", because=f"little known: {votes} of the {ENOUGH} gold votes needed")
        shown = f"{known.right} of {votes} gold votes right"
        if self.counts.policy == "weighted":
            shown += f"; weight {known.weight:.2f} of its {'probability' if known.graded else 'vote'}"
        return Standing(label="heard", because=shown)


def render(source: ReportInput, *, sheet: int = 8) -> str:
    """Return the page; ``sheet`` kept and ``sheet`` dropped pairs of each category are pictured."""
    tally, sampler = Tally(), Sampler(sheet)
    _count(source, tally, sampler)
    categories = tally.ordered(source.quotas)
    chosen = [entry for name in categories for entry in (*sampler.kept(name), *sampler.dropped(name))]
    verdicts = _count_answers(source, tally, {agreement.pair_id for agreement in chosen})
    cards = _cards(complete(chosen, verdicts, source), source)
    chapters = [_chapter(name, source.quotas, counts, cards) for name, counts in categories.items()]
    return environment().get_template("page.html.j2").render(_context(source, chapters))


def _count(source: ReportInput, tally: Tally, sampler: Sampler) -> None:
    for prompt in source.prompts():
        tally.add_prompt(prompt)
    for generation in source.generations():
        tally.add_generation(generation)
    for pair in source.pairs():
        tally.add_pair(pair)
    for agreement in source.agreements():
        tally.add_agreement(agreement)
        sampler.add(agreement)


def _count_answers(source: ReportInput, tally: Tally, wanted: set[str]) -> list[Verdict]:
    """Count what judges said and what is known of them; return the verdicts of the wanted pairs."""
    held = []
    for verdict in source.verdicts():
        tally.add_verdict(verdict)
        if verdict.pair_id in wanted:
            held.append(verdict)
    for calibration in source.calibrations():
        tally.add_calibration(calibration)
    return held


def _cards(samples: list[Sample], source: ReportInput) -> list[tuple[str, Card]]:
    """Draw every sample, two at a time: fetching waits and decoding leaves Python."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        drawn = pool.map(lambda sample: card(sample, source.fetch), samples)
        return [(sample.agreement.category, view) for sample, view in zip(samples, drawn, strict=True)]


def _chapter(
    name: str, quotas: Mapping[str, int], counts: CategoryCounts, cards: list[tuple[str, Card]]
) -> Chapter:
    own = [view for category, view in cards if category == name]
    return Chapter(
        name=name,
        quota=quotas.get(name, 0),
        counts=counts,
        kept=[view for view in own if view.kept],
        dropped=[view for view in own if not view.kept],
    )


def _context(source: ReportInput, chapters: list[Chapter]) -> Mapping[str, object]:
    counts = [chapter.counts for chapter in chapters]
    kept = sum(c.kept for c in counts)
    return {
        "source": source,
        "chapters": chapters,
        "reasons": REASONS,
        "orders": ORDERS,
        "longest_answer": LONGEST_ANSWER,
        "pairs": sum(c.pairs for c in counts),
        "pending": sum(c.pending for c in counts),
        "kept": Share(kept, sum(c.yield_.total for c in counts)),
        "dropped": sum(c.yield_.total for c in counts) - kept,
        "gold": sum(c.dropped[Reason.GOLD] for c in counts),
        "quota": sum(source.quotas.values()),
        "at_quota": sum(chapter.at_quota for chapter in chapters),
        "prompts": sum(c.prompts for c in counts),
        "generations": sum(c.generations for c in counts),
        "verdicts": sum(judge.answers for c in counts for judge in c.judges.values()),
        "failed_prompts": sum(c.prompt_failures.total() for c in counts),
        "failed_generations": sum(c.generation_failures.total() for c in counts),
        "sharded": sum(row.pairs for row in source.shards),
        "shard_bytes": sum(row.bytes for row in source.shards),
        "has_video": any(c.modality == "video" for c in counts),
    }


def environment() -> Environment:
    """Return what fills this room's templates; everything is escaped."""
    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda name: (files("pipeline.report") / name).read_text("utf-8")),
    )
    made.filters.update(
        count=lambda number: f"{number:,}",
        plain=lambda number: f"{number:,.1f}".removesuffix(".0"),
        percent=_percent,
        words=_words,
        size=_size,
        place=_place,
    )
    return made


def _percent(share: float | None) -> str:
    """0.5134 -> "51 %"; near the ends a decimal more, so that 99.6 % does not read as all."""
    if share is None:
        return "\u2013"
    near_end = 0 < share < 0.01 or 0.99 < share < 1
    return f"{share * 100:.{int(near_end)}f}\u202f%"


def _place(share: float) -> str:
    """0.5134 -> "51.34%", a CSS length."""
    return f"{share * 100:.2f}%"


def _words(name: str) -> str:
    """text_rendering -> Text rendering."""
    spaced = name.replace("_", " ")
    return spaced[:1].upper() + spaced[1:]


def _size(number: float) -> str:
    """1500000 -> "1.5 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.4g} TB"
