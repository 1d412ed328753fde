"""What a stage is, and how its work is committed.

A stage instance does one kind of work for one lane: a category, or a category and the one generator or
judge that it uses. Its work is cut into units; ``commit`` writes a unit's rows as one Parquet part at
``<stage>/<lane>/<fingerprint>/<unit>.parquet``. A part that exists is done, and there is no other state:
to resume is to list parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import CorruptError, StorageError
from pipeline.ids import Part, content_id
from pipeline.records import Record
from pipeline.storage import Store

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one worker of a stage needs; ``accelerator`` is a type of GPU by Ray's name for it (None: any)."""

    cpus: float = 1.0
    gpus: float = 0.0
    accelerator: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """About ten worker-minutes of a stage's work; equal units of equal fingerprints give equal parts."""

    stage: str
    lane: str
    fingerprint: str
    name: str
    bucket: int

    @property
    def key(self) -> str:
        """Where the unit's part stands in the store."""
        return f"{self.stage}/{self.lane}/{self.fingerprint}/{self.name}.parquet"


class Stage(ABC):
    """One kind of work for one lane; made by the driver, sent to workers, opened there."""

    name: ClassVar[str]
    resources: Resources = Resources()
    wave: int = 0
    """Stages of one kind run in waves: what reads another's parts comes after it."""

    def __init__(self, *, lane: str, **settings: Part) -> None:
        """``settings`` are what changes rows, the upstream fingerprints among them."""
        self.lane = lane
        self.fingerprint = content_id(self.name, lane=lane, **settings)[:16]

    @abstractmethod
    def units(self, store: Store) -> Iterator[Unit]:
        """Yield every unit, done or not; cheap, sorted and the same on every driver."""

    @abstractmethod
    def needs(self, unit: Unit) -> Iterator[Unit]:
        """Yield the units whose parts ``unit`` is made from."""

    @abstractmethod
    def process(self, unit: Unit, store: Store) -> pa.Table:
        """Do one unit: put blobs, return rows. Raises WorkerError if this worker is unfit."""

    def open(self, store: Store) -> None:  # noqa: B027 most stages hold nothing
        """Load what the stage needs; called in the worker before its first unit. ``store`` is the run's."""

    def close(self) -> None:  # noqa: B027
        """Free it again."""

    @staticmethod
    def lane_of(category: str, model: str) -> str:
        """Return the lane of one generator or judge of a category."""
        return f"{category}.{model.replace('/', '-')}"

    @property
    def category_name(self) -> str:
        """Name of the category that the lane belongs to; names have no dot."""
        return self.lane.partition(".")[0]

    @property
    def folder(self) -> str:
        """Where the stage's parts stand in the store."""
        return f"{self.name}/{self.lane}/{self.fingerprint}/"

    def buckets(self, unit: Unit) -> Iterable[int]:
        """Return the buckets of root prompts that ``unit`` holds."""
        return (unit.bucket,)

    def unit(self, bucket: int) -> Unit:
        """Return the unit of one bucket of root prompts."""
        return Unit(
            stage=self.name,
            lane=self.lane,
            fingerprint=self.fingerprint,
            name=f"{bucket:06d}",
            bucket=bucket,
        )


def commit(unit: Unit, table: pa.Table, store: Store) -> bool:
    """Write a unit's part; False if another worker was first (its part is the same: this one is dropped).

    The only writer of parts. Every record batch of ``table`` becomes a row group, so that a reader can
    take one bucket out of a part that holds many. Blobs are put before: a part never names a medium that
    is not there.
    """
    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd", write_page_checksum=True) as writer:
        for batch in table.to_batches() or [table.schema.empty_table()]:
            writer.write_table(pa.table(batch, schema=table.schema))
    return store.put(unit.key, buffer.getvalue().to_pybytes())


def read_part(record: type[R], key: str, store: Store, row_group: int | None = None) -> Iterator[R]:
    """Yield the records of a part, or of one of its row groups. Raises CorruptError, StorageError."""
    with store.open(key) as file, open_part(file, f"{store.uri}/{key}") as part:
        if row_group is None:
            table = part.read(use_threads=False)
        elif row_group < part.num_row_groups:
            table = part.read_row_group(row_group, use_threads=False)
        else:
            return
    _check_columns(record, table, f"{store.uri}/{key}")
    yield from record.rows(table)


def _check_columns(record: type[R], table: pa.Table, where: str) -> None:
    """Refuse a table that is none of ``record``; columns that have a default may be missing."""
    types = dict(zip(table.schema.names, table.schema.types, strict=True))
    for field in record.schema():
        if types.get(field.name, field.type if record.optional(field.name) else None) != field.type:
            raise CorruptError(f"{where}: column {field.name} is not that of a part: run `vipo repair`")


class Earlier:
    """Rows that a lane has under other fingerprints: what was made or asked once is not paid for again.

    A row's id covers all that determines it, so one of equal id is as good as new.
    """

    def __init__(self, stage: Stage, store: Store) -> None:
        self._store = store
        self._keys: defaultdict[str, list[str]] = defaultdict(list)
        for entry in store.list(f"{stage.name}/{stage.lane}/"):
            if entry.key.endswith(".parquet") and not entry.key.startswith(stage.folder):
                self._keys[entry.key.rpartition("/")[2]].append(entry.key)

    def rows(self, record: type[R], unit: Unit) -> Iterator[R]:
        """Yield the rows of units of the same name; parts that are damaged or gone by now hold none."""
        for key in self._keys[f"{unit.name}.parquet"]:
            try:
                yield from read_part(record, key, self._store)
            except CorruptError:
                continue
            except StorageError:
                if self._store.size(key) is not None:
                    raise


def read_columns(columns: list[str], key: str, store: Store) -> pa.Table:
    """Return some columns of a part. Raises CorruptError, StorageError."""
    with store.open(key) as file, open_part(file, f"{store.uri}/{key}") as part:
        return part.read(columns, use_threads=False)


@contextmanager
def open_part(file: Any, where: str) -> Iterator[pq.ParquetFile]:
    """Open a part whose pages are checked against their checksums. Raises CorruptError, on reads too."""
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as part:
            yield part
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split())
        raise CorruptError(f"{where}: not a readable part ({cause}): run `vipo repair`") from error


def read_metadata(key: str, store: Store) -> dict[str, str]:
    """Return what a part says of itself beside its rows. Raises CorruptError, StorageError."""
    with store.open(key) as file, open_part(file, f"{store.uri}/{key}") as part:
        metadata = part.schema_arrow.metadata or {}
        return {name.decode(): value.decode() for name, value in metadata.items()}
