"""What commands print with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """Return standard output: tables and colours on a terminal, plain text elsewhere."""
    from rich.console import Console

    return Console()


def table(title: str, headings: str, rows: Sequence[tuple[object, ...]], *, words: int = 1) -> None:
    """Print ``rows``; the first ``words`` columns are words, the others numbers."""
    from rich.markup import escape
    from rich.table import Table

    made = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings.split()):
        made.add_column(heading, justify="left" if number < words else "right")
    for row in rows:
        made.add_row(*(f"{cell:,}" if isinstance(cell, int) else escape(str(cell)) for cell in row))
    console().print(made)


def size(count: float) -> str:
    """Return ``count`` bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def time(seconds: float) -> str:
    """Return ``seconds`` in words."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.0f} h"
