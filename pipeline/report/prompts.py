"""The page about pools of prompts: one HTML file without script or network, as that about a build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.page import environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number of a pool, as it is printed, and what it says; ``missing``: why there is none."""

    name: str
    value: str
    about: str
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Columns of counts side by side; ``ends`` are the labels under the first and the last."""

    title: str
    about: str
    columns: Sequence[tuple[str, float]]
    ends: tuple[str, str]

    @property
    def highest(self) -> float:
        """Return the greatest count."""
        return max((count for _, count in self.columns), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One prompt to read."""

    text: str
    subject: str
    style: str
    difficulty: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """Shares of two pools' samples that have a neighbour in the other."""

    name: str
    covered: float
    returned: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """What the page says of one pool; ``about`` its origin, ``dropped`` counts of reasons."""

    name: str
    about: str
    prompts: int
    figures: Sequence[Figure]
    charts: Sequence[Chart]
    covered: Sequence[Covered]
    radius: float
    dropped: Mapping[str, int]
    lines: Sequence[Line]


def render(pools: Sequence[PoolView], *, title: str, created: str) -> str:
    """Return the page."""
    return environment().get_template("prompts.html.j2").render(pools=pools, title=title, created=created)
