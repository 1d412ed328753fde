"""What do the grown pools hold? One table of every category, at full size: 1.5 million and 450,000 prompts.

    make bench-pools        or        python -m tests.bench.pools --count 20000 --sample 50

Each pool is grown in a process of its own, streaming; its speed (in seconds of one core, whatever else
runs) and its peak of memory are taken then. It is grown once more to look for near duplicates: pairs of
prompts that share three in four of the words they ask for, found by MinHash (16 bands of 6 rows: 95 % of
the pairs at 0.75, all equal ones), each find checked.
``--sample`` prints prompts that are spread over the pool, to be read.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import multiprocessing
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pipeline.config import data_root, load_category
from pipeline.pools import categories, grow
from pipeline.records import Checks

T = TypeVar("T")

FULL = {"image": 300_000, "video": 150_000}
THRESHOLD = 0.75
BANDS, ROWS = 16, 6

_WORD = re.compile(r"[\w'-]+")
_LEFT_OUT = frozenset(("lettering", "placement"))
_JOINING = frozenset(("a", "an", "the", "of", "in", "on", "at", "beside", "under", "against", "and", "none"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """What was counted while a pool was grown."""

    prompts: int
    subjects: Counter[str]
    styles: Counter[str]
    levels: Counter[int]
    sha256: str
    seconds: float
    peak: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, help="prompts of each category; without it the full quota")
    parser.add_argument("--near", type=int, help="search so many prompts for near duplicates, not all")
    parser.add_argument("--sample", type=int, default=0, help="prompts of each category to print")
    parser.add_argument("--category", action="append", choices=categories())
    given = parser.parse_args()
    console = Console(width=200)
    names = given.category or categories()
    sizes = {name: given.count or FULL[_modality(name)] for name in names}
    for name in names if given.sample else ():
        console.print(f"\n[bold]{name}[/bold]", highlight=False)
        for prompt in sample(name, sizes[name], given.sample):
            console.print(prompt, highlight=False, markup=False, soft_wrap=True)
    table = Table("category", title="grown pools", title_justify="left")
    for heading in (
        "prompts", "effective subjects", "effective styles", "largest subject", "largest style",
        "difficulties",
        "least and most of one", "prompts/s", "peak RSS MB", "SHA-256 of the ids", "searched", "distinct",
        "near duplicates",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    grown_all: list[Grown] = []
    for name, size in sizes.items():
        grown = _apart(_grown, name, size)
        searched = size if given.near is None else min(size, given.near)
        distinct, near = _apart(_duplicates, name, searched)
        grown_all.append(grown)
        table.add_row(
            name, *_row(grown), f"{searched:,}", f"{distinct:,}", f"{near:,} ({near / max(1, searched):.3%})"
        )
        print(f"{name}: {grown.prompts:,} in {grown.seconds:.0f} s", file=sys.stderr, flush=True)
    console.print(table)
    total, seconds = sum(each.prompts for each in grown_all), sum(each.seconds for each in grown_all)
    print(
        f"{total:,} prompts in {seconds:,.0f} s of one core: {total / seconds:,.0f} a second; "
        f"peak of one process {max(each.peak for each in grown_all) / 1e6:.0f} MB"
    )


def sample(category: str, size: int, count: int) -> Iterator[str]:
    """Yield ``count`` prompts of a pool of ``size``, far from each other."""
    for number in range(count):
        start = number * size // count + number
        yield next(grow(category, size, bucket_size=1, start=min(start, size - 1))).text


def _row(grown: Grown) -> Iterator[str]:
    levels = grown.levels
    yield f"{grown.prompts:,}"
    for strata in (grown.subjects, grown.styles):
        yield f"{effective(strata):.1f}"
    for strata in (grown.subjects, grown.styles):
        yield f"{max(strata.values()) / grown.prompts:.2%}"
    yield f"{min(levels)}-{max(levels)}"
    yield f"{min(levels.values()) / grown.prompts:.1%} {max(levels.values()) / grown.prompts:.1%}"
    yield f"{grown.prompts / grown.seconds:,.0f}"
    yield f"{grown.peak / 1e6:.0f}"
    yield grown.sha256[:12]


def effective(strata: Counter[str]) -> float:
    """Return the effective number of strata: exp of the entropy of their shares."""
    total = strata.total()
    return math.exp(-sum(n / total * math.log(n / total) for n in strata.values()))


def _grown(category: str, size: int) -> Grown:
    subjects, styles, levels = Counter[str](), Counter[str](), Counter[int]()
    digest, count, started = hashlib.sha256(), 0, time.process_time()
    for prompt in grow(category, size, bucket_size=500):
        subjects[prompt.subject] += 1
        styles[prompt.style] += 1
        levels[prompt.difficulty] += 1
        digest.update(prompt.id.encode())
        count += 1
    return Grown(
        prompts=count,
        subjects=subjects,
        styles=styles,
        levels=levels,
        sha256=digest.hexdigest(),
        seconds=time.process_time() - started,
        peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _duplicates(category: str, size: int) -> tuple[int, int]:
    """Return how many texts are distinct, and how many prompts are near an earlier one."""
    numbers: dict[str, int] = {}
    texts, said = set[bytes](), list[frozenset[int]]()
    for prompt in grow(category, size, bucket_size=500):
        texts.add(hashlib.sha256(prompt.text.encode()).digest()[:16])
        said.append(frozenset(numbers.setdefault(word, len(numbers)) for word in words(prompt.checks)))
    return len(texts), len({max(pair) for pair in near_pairs(said, len(numbers))})


def words(checks: Checks) -> set[str]:
    """Return the words of what ``checks`` ask for, but numbers, colours, sides and directions."""
    phrases = [group.name for group in checks.objects]
    phrases += [each.value for each in checks.attributes if each.name not in _LEFT_OUT]
    return set(_WORD.findall(" ".join([*phrases, checks.text or ""]).casefold())) - _JOINING


def near_pairs(said: list[frozenset[int]], vocabulary: int) -> set[tuple[int, int]]:
    """Return the pairs of sets whose Jaccard similarity reaches THRESHOLD, as far as a band shows them."""
    sketches = _sketches(said, vocabulary)
    found: set[tuple[int, int]] = set()
    for band in range(BANDS):
        keys = np.ascontiguousarray(sketches[:, band * ROWS : (band + 1) * ROWS]).view("V24").ravel()
        _, groups, sizes = np.unique(keys, return_inverse=True, return_counts=True)
        order = np.argsort(groups, kind="stable")
        ends = np.cumsum(sizes)
        for end in ends[sizes > 1].tolist():
            members = order[end - int(sizes[groups[order[end - 1]]]) : end].tolist()
            found.update(_similar(members, said))
    return found


def _sketches(said: list[frozenset[int]], vocabulary: int) -> NDArray[np.uint32]:
    """Return the MinHash of every set, [sets, BANDS * ROWS]."""
    hashes = np.random.default_rng(7).integers(1 << 32, size=(vocabulary, BANDS * ROWS), dtype=np.uint32)
    sketches = np.empty((len(said), BANDS * ROWS), np.uint32)
    for row, each in enumerate(said):
        hashes.take(list(each), axis=0).min(axis=0, out=sketches[row])
    return sketches


def _similar(members: list[int], said: list[frozenset[int]]) -> Iterator[tuple[int, int]]:
    for place, other in enumerate(members):
        for one in members[:place]:
            common = len(said[one] & said[other])
            if common >= THRESHOLD * (len(said[one]) + len(said[other]) - common):
                yield one, other


def _modality(category: str) -> str:
    return load_category(data_root() / "categories" / f"{category}.toml").modality


def _apart(function: Callable[[str, int], T], *given: object) -> T:
    """Run ``function`` in a fresh process, so that its peak of memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, given)


if __name__ == "__main__":
    main()
