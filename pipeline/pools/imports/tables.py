"""The tables that an import writes: row by row to a local file, then put where they are wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError
from pipeline.records import Prompt
from pipeline.storage import Store, open_store

POOL = pa.schema(
    [
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("text", "subject", "style", "licence", "source")
        ),
        pa.field("checks", Prompt.schema().field("checks").type),
    ]
)
DROPPED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("text", pa.string()),
    ]
)
_ROW_GROUP = 8192


class Table:
    """A Parquet file written in row groups; never more than one of them in memory."""

    def __init__(self, schema: pa.Schema, path: Path) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        """Write ``row``."""
        self._rows.append(row)
        if len(self._rows) == _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def require_free(uri: str) -> None:
    """Raise ConfigError if there is something at ``uri``: a pool never changes."""
    store, name = _place(uri)
    if store.size(name) is not None:
        raise ConfigError(f"{uri}: exists, and a pool never changes: choose another name, or remove it")


def put(uri: str, path: Path) -> None:
    """Write the file ``path`` as ``uri``. Raises ConfigError if there is one by now, StorageError."""
    store, name = _place(uri)
    if not store.put_file(name, path):
        require_free(uri)


def _place(uri: str) -> tuple[Store, str]:
    folder, _, name = uri.rpartition("/")
    return open_store(folder or ("/" if uri.startswith("/") else ".")), name
