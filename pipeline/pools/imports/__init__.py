"""Importing a pool: prompts of a public set or of one's own, cleaned, as Parquet that a category names.

Evaluation sets never become a pool; they are what pools are held apart from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import nearest
from pipeline.errors import ConfigError, ItemError
from pipeline.pools.checks import checks_of
from pipeline.pools.clean import WITHHELD, Cleaner, Given, HeldOut, Policy, Reason, Sifted, tidy
from pipeline.pools.imports.formats import FORMATS, Format, format_of
from pipeline.pools.imports.sources import Row, files, read
from pipeline.pools.imports.tables import DROPPED, POOL, Table, put, require_free
from pipeline.records import Checks

__all__ = ["FORMATS", "Checked", "Imported", "Match", "check_pool", "hold_out", "import_pool"]

COLUMNS = ("text", "subject", "style", "licence", "checks")
"""What a row can say, by our names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A pool that was written, and how many rows were read and kept, of these repaired and with checks."""

    pool: str
    dropped_pool: str
    sha256: str
    licence: str
    bytes: int
    rows: int
    repaired: int
    kept: int
    checked: int
    dropped: Mapping[Reason, int]

    def toml(self) -> str:
        """Return the lines of a category file that name this pool."""
        uri = self.pool if "://" in self.pool else str(Path(self.pool).absolute())
        return f'[pool]\nuri = "{uri}"\nsha256 = "{self.sha256}"\nlicence = "{self.licence}"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A prompt of a pool, its row (from 1), and how (exact, near, contains) it is a held-out prompt."""

    row: int
    text: str
    how: str
    held_out: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """How many rows of a pool were compared with how many held-out prompts, and those that match."""

    rows: int
    held_out: int
    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A row as read: where it stood, and what it says beside its text."""

    file: str
    line: int
    subject: str = ""
    style: str = ""
    licence: str = ""
    checks: Checks | None = None


def import_pool(
    sources: Sequence[str],
    *,
    format: str,  # noqa: A002 the name of the option
    out: str,
    licence: str,
    source: str,
    columns: Mapping[str, str] | None = None,
    held_out: HeldOut | None = None,
    policy: Policy | None = None,
    similar: float = 0.0,
) -> Imported:
    """Read ``sources`` in turn, clean them, and write the pool ``out`` and beside it what was dropped.

    ``columns`` names columns of the sources for our own (text, subject, style, licence, checks). ``licence``
    holds for every row that names no other, ``source`` for all; ``similar``: see Cleaner. The texts of rows
    dropped for minors or personal data are not written. Raises ConfigError for an evaluation set, wrong
    settings and files that cannot be read at all, StorageError where bytes cannot be had.
    """
    given = _with_columns(_training(format), columns or {})
    for name, value in (("licence", licence), ("source", source)):
        if not value.strip():
            raise ConfigError(f"prompts: {name} is empty: say it, every prompt carries it")
    if not out.endswith(".parquet"):
        raise ConfigError(f"{out}: a pool is written as Parquet: end its name in .parquet")
    beside = f"{out.removesuffix('.parquet')}.dropped.parquet"
    for name in (out, beside):
        require_free(name)
    cleaner = Cleaner(policy, held_out, similar=similar)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        pool, rest = Path(folder) / "pool", Path(folder) / "dropped"
        with Table(POOL, pool) as kept, Table(DROPPED, rest) as dropped:
            for number, each in enumerate(cleaner.sift(_rows(sources, given)), start=1):
                _count(each, counts)
                if each.reason is None:
                    kept.add(_kept(each, licence, source))
                else:
                    dropped.add(_dropped(each, number))
        with pool.open("rb") as written:
            sha256, size = hashlib.file_digest(written, "sha256").hexdigest(), pool.stat().st_size
        put(beside, rest)
        if not counts["kept"]:
            raise ConfigError(f"{out}: not written, no row of {counts['rows']} is kept: {beside} says why")
        put(out, pool)
    return Imported(
        pool=out,
        dropped_pool=beside,
        sha256=sha256,
        licence=licence,
        bytes=size,
        rows=counts["rows"],
        repaired=counts["repaired"],
        kept=counts["kept"],
        checked=counts["checked"],
        dropped={reason: counts[reason] for reason in Reason if counts[reason]},
    )


def hold_out(sources: Iterable[str]) -> HeldOut:
    """Read held-out prompts: each a file or folder, or FORMAT=file such as parti=PartiPrompts.tsv.

    Raises ConfigError if one holds none.
    """
    held = HeldOut()
    for source in sources:
        name, separator, place = source.partition("=")
        chosen = format_of(name) if separator else FORMATS["plain"]
        before = 0
        for row in _rows([place if separator else source], chosen):
            if row.raw is not None:
                held.add(tidy(row.raw))
                before += 1
        if not before:
            raise ConfigError(f"{source}: no prompt to hold out: check the file and its format")
    return held


def check_pool(pool: str, held_out: HeldOut) -> Checked:
    """Compare every prompt of ``pool`` with the held-out ones."""
    matches, rows = [], 0
    for rows, row in enumerate(_rows([pool], FORMATS["plain"]), start=1):
        text = tidy(row.raw or "")
        if found := held_out.match(text):
            matches.append(Match(row=rows, text=text, how=found[0], held_out=found[1]))
    return Checked(rows=rows, held_out=len(held_out), matches=tuple(matches))


def _training(name: str) -> Format:
    chosen = format_of(name)
    if chosen.evaluation:
        raise ConfigError(
            f"prompts: {name} is an evaluation set and never becomes a pool: import another set and "
            f"name this one as --hold-out {name}=FILE"
        )
    return chosen


def _with_columns(given: Format, columns: Mapping[str, str]) -> Format:
    for name in columns:
        if name not in COLUMNS:
            raise ConfigError(f"prompts: no column {name!r}: {nearest(name, COLUMNS)}")
    return dataclasses.replace(
        given,
        text=(columns["text"],) if "text" in columns else given.text,
        columns={**given.columns, **{ours: theirs for ours, theirs in columns.items() if ours != "text"}},
        checks=None if "checks" in columns else given.checks,
    )


def _rows(sources: Iterable[str], given: Format) -> Iterator[Given[_Found]]:
    others = (*given.columns.values(), *given.scores, *given.raw)
    for file in (file for source in sources for file in files(source)):
        for line, row in enumerate(read(file, given.text, others, whole=given.whole), start=1):
            place = _Found(file=file.name, line=line)
            try:
                yield _given(row, given, place)
            except ItemError as error:
                yield Given(row=place, raw=None, note=str(error))


def _given(row: Row | ItemError, given: Format, place: _Found) -> Given[_Found]:
    """Raises ItemError for a row that cannot be used."""
    if isinstance(row, ItemError):
        raise row
    column = next((name for name in (*given.text, "text") if row.get(name) is not None), None)
    if column is None:
        raise ItemError("no text")
    said = {ours: _said(row, theirs) for ours, theirs in given.columns.items() if ours != "checks"}
    found = _Found(
        file=place.file,
        line=place.line,
        subject=said.get("subject", ""),
        style=said.get("style", ""),
        licence=said.get("licence", ""),
        checks=_checks(row, given),
    )
    return Given(row=found, raw=_text(row[column], column), note=_unsafe(row, given.scores))


def _said(row: Row, column: str) -> str:
    return "" if row.get(column) is None else _text(row[column], column)


def _text(value: object, name: str) -> str:
    try:
        text = value.decode() if isinstance(value, bytes) else value
        if not isinstance(text, str):
            raise ItemError(f"{name} is not a string")
        text.encode()
    except UnicodeError as error:
        raise ItemError(f"{name} is not UTF-8") from error
    return text


def _checks(row: Row, given: Format) -> Checks | None:
    """Return checks of the set's own layout, or those of a column: an object, or its JSON."""
    value = given.checks(row) if given.checks else row.get(given.columns.get("checks", ""))
    if isinstance(value, (str, bytes)):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ItemError("checks is not JSON") from error
    return None if value is None else checks_of(value)


def _unsafe(row: Row, scores: Mapping[str, float]) -> str:
    for name, least in scores.items():
        value = row.get(name)
        try:
            score = float(value) if value not in (None, "", b"") else 0.0
        except (TypeError, ValueError) as error:
            raise ItemError(f"{name} is not a number") from error
        if score >= least:
            return f"{name} {score:.2f}"
    return ""


def _count(sifted: Sifted[_Found], counts: Counter[str]) -> None:
    counts["rows"] += 1
    counts[sifted.reason or "kept"] += 1
    if sifted.reason is None:
        counts["repaired"] += sifted.repaired
        counts["checked"] += bool(sifted.row.checks and sifted.row.checks != Checks())


def _kept(sifted: Sifted[_Found], licence: str, source: str) -> dict[str, Any]:
    row = sifted.row
    return {
        "text": sifted.text,
        "subject": tidy(row.subject),
        "style": tidy(row.style),
        "licence": tidy(row.licence) or licence,
        "source": source,
        "checks": None if row.checks is None else dataclasses.asdict(row.checks),
    }


def _dropped(sifted: Sifted[_Found], number: int) -> dict[str, Any]:
    return {
        "row": number,
        "file": sifted.row.file,
        "line": sifted.row.line,
        "reason": sifted.reason,
        "detail": sifted.detail,
        "text": None if sifted.reason in WITHHELD else sifted.text,
    }
