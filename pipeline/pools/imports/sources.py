"""Rows of files and folders, here, on S3 or on the Hugging Face hub, one after the other."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, ItemError, StorageError
from pipeline.storage import Store, open_store

Row = Mapping[str, Any]
Reader = Callable[[BinaryIO, Sequence[str], Sequence[str]], Iterator["Row | ItemError"]]

_HUB = re.compile(r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[^/]+)/(?P<file>.+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LONGEST_FIELD = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of a source: ``name`` as told to the user, and where it lies."""

    name: str
    store: Store
    key: str


def files(source: str) -> list[File]:
    """Return the files of ``source``: a path, a folder, an s3:// address or hf://datasets/ORG/NAME@COMMIT/FILE.

    Raises ConfigError or StorageError if there is none of a kind that can be read.
    """
    if source.startswith("hf://"):
        source = str(_downloaded(source))
    folder, _, name = source.rstrip("/").rpartition("/")
    store = open_store(folder or ("/" if source.startswith("/") else "."))
    if name and store.size(name) is not None:
        if _suffix(name) not in _READERS:
            raise ConfigError(f"{source}: not a kind that is read: use one of {', '.join(_READERS)}")
        return [File(name=name, store=store, key=name)]
    store = open_store(source)
    keys = sorted(entry.key for entry in store.list("") if _suffix(entry.key) in _READERS)
    if not keys:
        raise ConfigError(f"{source}: no such file, nor a folder with files of {', '.join(_READERS)}")
    return [File(name=key, store=store, key=key) for key in keys]


def read(
    file: File, text: Sequence[str], others: Sequence[str], *, whole: bool = False
) -> Iterator[Row | ItemError]:
    """Yield each row, or what is wrong with it. A row of plain text is {"text": ...}.

    A table must have one of the columns ``text``; of Parquet these and ``others`` are read. Raises
    ConfigError for a file that is not what its name says.
    """
    reader = _whole if whole and _suffix(file.key) == ".txt" else _READERS[_suffix(file.key)]
    with closing(file.store.open(file.key)) as opened:
        try:
            yield from reader(opened, text, others)
        except ConfigError as error:
            raise ConfigError(f"{file.store.uri}/{file.key}: {error}") from error
        except (pa.ArrowException, ValueError, RecursionError) as error:
            cause = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ConfigError(
                f"{file.store.uri}/{file.key}: not readable as {_suffix(file.key)} ({cause}): fetch it again"
            ) from error


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _parquet(opened: BinaryIO, text: Sequence[str], others: Sequence[str]) -> Iterator[Row | ItemError]:
    """Strings are read as bytes, because a column can hold what is not UTF-8."""
    file = pq.ParquetFile(opened)
    _require_text(file.schema_arrow.names, text)
    names = [name for name in file.schema_arrow.names if name in {*text, *others}]
    for batch in file.iter_batches(batch_size=4096, columns=names):
        values = [_values(column) for column in batch.columns]
        yield from (dict(zip(batch.schema.names, row, strict=True)) for row in zip(*values, strict=True))


def _require_text(found: Sequence[str], text: Sequence[str]) -> None:
    if not set(found) & set(text):
        raise ConfigError(
            f"no column {' or '.join(text)}, only {', '.join(found)}: name one with --column text=..."
        )


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return list(column.cast(pa.large_binary()).to_pylist())
    return list(column.to_pylist())


def _jsonl(opened: BinaryIO, *_: Sequence[str]) -> Iterator[Row | ItemError]:
    for line in opened:
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            yield ItemError("the line is not UTF-8")
        except (ValueError, RecursionError):
            yield ItemError("not JSON")
        else:
            yield row if isinstance(row, dict) else ItemError("not a JSON object")


def _json(opened: BinaryIO, *_: Sequence[str]) -> Iterator[Row | ItemError]:
    """A list of objects or of texts, or an object of such lists."""
    found = json.loads(opened.read().decode("utf-8-sig"))
    lists = found.values() if isinstance(found, dict) else [found]
    for each in lists:
        if not isinstance(each, list):
            raise ConfigError("neither a JSON list nor an object of lists: make it one")
        for row in each:
            yield row if isinstance(row, dict) else {"text": row}


def _csv(opened: BinaryIO, text: Sequence[str], _: Sequence[str]) -> Iterator[Row | ItemError]:
    return _separated(opened, text, ",")


def _tsv(opened: BinaryIO, text: Sequence[str], _: Sequence[str]) -> Iterator[Row | ItemError]:
    return _separated(opened, text, "\t")


def _separated(opened: BinaryIO, text: Sequence[str], delimiter: str) -> Iterator[Row | ItemError]:
    decoded = io.TextIOWrapper(opened, encoding="utf-8-sig", errors="surrogateescape", newline="")
    csv.field_size_limit(_LONGEST_FIELD)
    rows = csv.DictReader(decoded, delimiter=delimiter)
    _require_text(rows.fieldnames or (), text)
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield ItemError(f"not CSV: {error}")


def _lines(opened: BinaryIO, *_: Sequence[str]) -> Iterator[Row | ItemError]:
    for line in opened:
        if line.strip():
            yield {"text": line.removeprefix(b"\xef\xbb\xbf")}


def _whole(opened: BinaryIO, *_: Sequence[str]) -> Iterator[Row | ItemError]:
    yield {"text": opened.read().removeprefix(b"\xef\xbb\xbf")}


_READERS: dict[str, Reader] = {
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".txt": _lines,
}


def _downloaded(source: str) -> Path:
    """Return the hub cache's copy of a file of a dataset at a commit, downloaded if need be."""
    named = _HUB.fullmatch(source)
    if named is None:
        raise ConfigError(f"{source}: give a file as hf://datasets/ORG/NAME@COMMIT/FILE")
    if not _COMMIT.fullmatch(named["revision"]):
        raise ConfigError(
            f"{source}: {named['revision']!r} may change: give the commit, 40 hex digits, "
            "as the hub's history of the dataset shows it"
        )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ConfigError(f"{source}: needs huggingface_hub: pip install 'vipo[pools]'") from error
    try:
        return Path(
            hf_hub_download(named["repo"], named["file"], revision=named["revision"], repo_type="dataset")
        )
    except Exception as error:  # noqa: BLE001 of requests or of httpx, by the client's version
        raise _refused(source, error) from None


def _refused(source: str, error: Exception) -> ConfigError | StorageError:
    """Return the client's error, whose text takes many lines, as one line."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return ConfigError(f"{source}: gated: accept its terms on the hub and set HF_TOKEN")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ConfigError(
            f"{source}: no such dataset on the hub, or private: check the name, or set HF_TOKEN"
        )
    if isinstance(error, (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError)):
        return ConfigError(f"{source}: the hub has no such file at this commit: check both")
    status = getattr(getattr(error, "response", None), "status_code", None)
    cause = f"it answered {status}" if status else type(error).__name__
    return StorageError(
        f"{source}: cannot be had from the hub ({cause}) nor from its cache: check network and HF_HUB_OFFLINE"
    )
