"""How diverse a pool is: what its prompts are about, how they are said, how far apart they lie.

Measures that depend on how many texts are looked at are taken on a sample of fixed size, the same whatever
order the pool comes in, so that pools of unlike size compare: distinct-n (Li et al. 2016), distance to the
nearest neighbour, near duplicates, coverage.
"""

from __future__ import annotations

import hashlib
import math
from bisect import insort
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.pools.clean.text import words
from pipeline.records import Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE = 5_000
SHOWN = 50
RADIUS = 0.3
"""Cosine distance within which one prompt covers another: about that of two wordings of one scene."""

_BLOCK = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """``covered``: the share of the other pool's sample with a neighbour in ours; ``returned``: of ours."""

    name: str
    covered: float
    returned: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Cosine distances of the sample's texts to their nearest other, and coverage of other pools."""

    distances: tuple[float, ...]
    coverages: tuple[Coverage, ...]

    @property
    def mean(self) -> float:
        """Return the mean distance."""
        return math.fsum(self.distances) / max(1, len(self.distances))


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """What a pool is like. ``lengths`` is in words; ``near`` the share of the sample's prompts that nearly
    repeat another of the whole pool; ``shown`` prompts to read.

    ``near`` and ``neighbours`` are None where the package named by ``missing`` is not installed.
    """

    prompts: int
    failed: Mapping[str, int]
    perturbed: int
    subjects: Mapping[str, int]
    styles: Mapping[str, int]
    difficulties: Mapping[int, int]
    lengths: Mapping[int, int]
    sampled: int
    distinct: tuple[float, float, float]
    near: float | None
    neighbours: Neighbours | None
    missing: str
    shown: tuple[Prompt, ...]


class Measured:
    """Gathers what is measured of one pool, prompt by prompt; holds its texts, some 100 bytes each."""

    def __init__(self, sample: int = SAMPLE) -> None:
        self._size = sample
        self._texts: list[str] = []
        self._least: list[tuple[bytes, str]] = []
        self._shown: list[tuple[bytes, str, Prompt]] = []
        self._failed: Counter[str] = Counter()
        self._perturbed = 0
        self._subjects: Counter[str] = Counter()
        self._styles: Counter[str] = Counter()
        self._difficulties: Counter[int] = Counter()
        self._lengths: Counter[int] = Counter()

    def add(self, prompt: Prompt) -> None:
        """Count one prompt; those that failed or are perturbed are only counted."""
        if prompt.status == "failed":
            self._failed[prompt.reason or "no reason given"] += 1
            return
        if prompt.perturbation is not None:
            self._perturbed += 1
            return
        self._texts.append(prompt.text)
        self._subjects[prompt.subject] += 1
        self._styles[prompt.style] += 1
        self._difficulties[prompt.difficulty] += 1
        self._lengths[len(words(prompt.text))] += 1
        rank = _rank(prompt.text)
        if len(self._least) < self._size or rank < self._least[-1][0]:
            insort(self._least, (rank, prompt.text))
            del self._least[self._size :]
        if len(self._shown) < SHOWN or rank < self._shown[-1][0]:
            insort(self._shown, (rank, prompt.id, prompt), key=lambda held: held[:2])
            del self._shown[SHOWN:]

    @property
    def sample(self) -> list[str]:
        """Return the texts that stand for the pool: those of least hash, so a fair draw in any order."""
        return [text for _, text in self._least]

    def measure(self, others: Mapping[str, Sequence[str]] | None = None, radius: float = RADIUS) -> Diversity:
        """Return what the pool is like, and how it and the samples of ``others`` cover each other."""
        sample, missing = self.sample, ""
        near, neighbours = None, None
        try:
            near = near_share(sample, self._texts)
            neighbours = _neighbours(sample, others or {}, radius)
        except ImportError as error:
            missing = str(error.name)
        return Diversity(
            prompts=len(self._texts),
            failed=self._failed,
            perturbed=self._perturbed,
            subjects=self._subjects,
            styles=self._styles,
            difficulties=self._difficulties,
            lengths=self._lengths,
            sampled=len(sample),
            distinct=(distinct(sample, 1), distinct(sample, 2), distinct(sample, 3)),
            near=near,
            neighbours=neighbours,
            missing=missing,
            shown=tuple(prompt for _, _, prompt in self._shown),
        )


def measured(prompts: Iterable[Prompt], sample: int = SAMPLE) -> Measured:
    """Read a whole pool."""
    found = Measured(sample)
    for prompt in prompts:
        found.add(prompt)
    return found


def effective(counts: Collection[int]) -> float:
    """Return how many values of equal size would be as diverse: exp of Shannon's entropy (Hill 1973)."""
    total = sum(counts)
    shares = (count / total for count in counts if count)
    return math.exp(-math.fsum(share * math.log(share) for share in shares)) if total else 0.0


def distinct(texts: Iterable[str], length: int) -> float:
    """Return distinct-n: different n-grams of ``length`` words, as a share of all n-grams of the texts."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        said = words(text)
        grams = [tuple(said[start : start + length]) for start in range(len(said) - length + 1)]
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else 0.0


def near_share(sample: Sequence[str], texts: Iterable[str]) -> float:
    """Return the share of ``sample`` that nearly repeats another of ``texts``, by the words.

    ``sample`` is part of ``texts``; nearly is what cleaning means by it. Found by MinHash LSH, each find
    checked.
    """
    from pipeline.pools.clean.near import Copies

    queries = Copies()
    for number, text in enumerate(sample):
        queries.add(words(text), number)
    met: Counter[int] = Counter()
    for text in texts:
        met.update(queries.all_near(words(text)))
    return sum(times > 1 for times in met.values()) / len(sample) if sample else 0.0


def nearest(vectors: NDArray[np.float32], others: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return the cosine distance [n] of each of ``vectors`` [n, d] to its nearest of ``others`` [m, d].

    None: to its nearest other among ``vectors``. All have unit length. Distances are in [0, 2]; 2 where
    there is none.
    """
    import numpy as np

    pool = vectors if others is None else others
    best = np.full(len(vectors), -1.0, np.float32)
    for start in range(0, len(vectors) if len(pool) else 0, _BLOCK):
        likeness = vectors[start : start + _BLOCK] @ pool.T
        if others is None:
            rows = np.arange(len(likeness))
            likeness[rows, start + rows] = -1.0
        best[start : start + _BLOCK] = likeness.max(axis=1)
    distances: NDArray[np.float32] = np.clip(1 - best, 0, 2)
    return distances


def _neighbours(sample: Sequence[str], others: Mapping[str, Sequence[str]], radius: float) -> Neighbours:
    from pipeline.pools.clean.near import Model

    model = Model()
    own = model.embed(sample)
    coverages = []
    for name, texts in others.items():
        theirs = model.embed(texts)
        coverages.append(
            Coverage(
                name=name,
                covered=float((nearest(theirs, own) <= radius).mean()) if len(theirs) else 0.0,
                returned=float((nearest(own, theirs) <= radius).mean()) if len(own) else 0.0,
            )
        )
    return Neighbours(distances=tuple(nearest(own).tolist()), coverages=tuple(coverages))


def _rank(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
