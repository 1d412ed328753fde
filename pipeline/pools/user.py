"""A user's own pool: JSONL or Parquet, pinned by its SHA-256. A bad row is a failed prompt, never fatal."""

from __future__ import annotations

import hashlib
import io
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, ItemError
from pipeline.ids import content_id
from pipeline.pools.checks import checks_of
from pipeline.pools.content import difficulty
from pipeline.records import Checks, Prompt

LONGEST = 2_000
"""Characters of a prompt's text."""

_COLUMNS = ("text", "subject", "style", "licence", "source", "checks")

Row = Mapping[str, Any] | bytes


def read(
    uri: str,
    sha256: str,
    *,
    category: str,
    licence: str,
    bucket_size: int,
    fetch: Callable[[str], bytes],
) -> Iterator[Prompt]:
    """Yield one prompt for each row of the pool at ``uri``; a bad row has status "failed" and a reason.

    Keys: text, and optionally subject, style, licence, source, checks. Raises ConfigError if the bytes do not
    have ``sha256``, or are no table with a text column.
    """
    payload = fetch(uri)
    found = hashlib.sha256(payload).hexdigest()
    if found != sha256.lower():
        raise ConfigError(
            f"pool {uri}: its SHA-256 is {found}, the settings expect {sha256}; "
            "restore the file, or put the new SHA-256 in the settings if the change is meant"
        )
    is_parquet = uri.lower().endswith(".parquet") or (payload[:4] == payload[8:][-4:] == b"PAR1")
    rows = _parquet(uri, payload) if is_parquet else iter(_lines(payload))
    # Not the folder: the same pool gives the same rows on every machine.
    source = f"{uri.rpartition('/')[2]}#sha256={found[:16]}"
    return _prompts(rows, source, category, licence, bucket_size)


def _prompts(
    rows: Iterator[Row], source: str, category: str, licence: str, bucket_size: int
) -> Iterator[Prompt]:
    first_lines: dict[str, int] = {}
    for line, row in enumerate(rows, start=1):
        bucket = (line - 1) // bucket_size
        try:
            prompt = _prompt(_fields(row), source, category, licence, bucket, line)
        except ItemError as error:
            yield _failed(str(error), source, category, licence, bucket, line)
            continue
        if (first := first_lines.setdefault(prompt.id, line)) == line:
            yield prompt
        else:
            yield _failed(f"the same text as line {first}", source, category, licence, bucket, line)


def _lines(payload: bytes) -> list[Row]:
    lines: list[Row] = list(payload.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    return lines[:-1] if lines[-1] == b"" else lines


def _parquet(uri: str, payload: bytes) -> Iterator[Row]:
    """Strings are read as bytes, because a column can hold what is not UTF-8."""
    try:
        file = pq.ParquetFile(io.BytesIO(payload))
        names = [name for name in _COLUMNS if name in file.schema_arrow.names]
        if "text" not in names:
            raise ConfigError(f"pool {uri}: no column 'text', only {file.schema_arrow.names}; rename one")
        for batch in file.iter_batches(batch_size=4096, columns=names):
            yield from (
                dict(zip(names, values, strict=True))
                for values in zip(*(_values(column) for column in batch.columns), strict=True)
            )
    except (pa.ArrowException, OSError) as error:
        cause = str(error).splitlines()[0]
        raise ConfigError(f"pool {uri}: not a readable Parquet file ({cause}); write it again") from error


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_string(column.type):
        return list(column.cast(pa.binary()).to_pylist())
    if pa.types.is_large_string(column.type):
        return list(column.cast(pa.large_binary()).to_pylist())
    return list(column.to_pylist())


def _fields(row: Row) -> Mapping[str, Any]:
    """Raises ItemError for a line that is no JSON object."""
    if not isinstance(row, bytes):
        return row
    line = _decoded(row, "the line")
    if not line.strip():
        raise ItemError("an empty line")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ItemError("not JSON") from error
    if not isinstance(fields, dict):
        raise ItemError("not a JSON object")
    return fields


def _prompt(
    fields: Mapping[str, Any], source: str, category: str, licence: str, bucket: int, line: int
) -> Prompt:
    text = _text(fields.get("text"), "text")
    if not text:
        raise ItemError("no text")
    if len(text) > LONGEST:
        raise ItemError(f"text of {len(text):,} characters, the limit is {LONGEST:,}")
    own = content_id("prompt", category=category, text=text)
    checks = _checks(fields.get("checks"))
    return Prompt(
        id=own,
        root_id=own,
        category=category,
        bucket=bucket,
        text=text,
        subject=_text(fields.get("subject"), "subject"),
        style=_text(fields.get("style"), "style"),
        checks=checks,
        source=" in ".join(filter(None, (_text(fields.get("source"), "source"), source))),
        licence=_text(fields.get("licence"), "licence") or licence,
        line=line,
        difficulty=difficulty(checks),
    )


def _text(value: object, name: str) -> str:
    """Return NFC text with single spaces; nothing given is ""."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = _decoded(value, name)
    if not isinstance(value, str):
        raise ItemError(f"{name} is not a string")
    if any(0xD800 <= ord(each) <= 0xDFFF for each in value):
        raise ItemError(f"{name} is not UTF-8")
    text = unicodedata.normalize("NFC", " ".join(value.split()))
    if any(unicodedata.category(each) == "Cc" for each in text):
        raise ItemError(f"{name} holds control characters")
    return text


def _decoded(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ItemError(f"{name} is not UTF-8") from error


def _checks(value: object) -> Checks:
    """``checks`` may be an object or, in a Parquet string column, its JSON."""
    if isinstance(value, bytes):
        value = _fields(value)
    return checks_of(value)


def _failed(reason: str, source: str, category: str, licence: str, bucket: int, line: int) -> Prompt:
    own = content_id("prompt", category=category, source=source, line=line)
    return Prompt(
        id=own,
        root_id=own,
        category=category,
        bucket=bucket,
        text="",
        subject="",
        style="",
        checks=Checks(),
        source=source,
        licence=licence,
        status="failed",
        reason=reason[:200],
        line=line,
    )
