"""The protocol of a store, and what its kinds share."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from pipeline.errors import StorageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A stored object: key below the store's address, bytes, and when it was written by the store's clock."""

    key: str
    size: int
    modified: float


TEMPORARY = ".tmp/"
"""Listed under this prefix alone: what unfinished writes have left. Safe to delete once no writer lives."""


class Store(Protocol):
    """Keys to bytes. A key is written whole or not at all, and never changes once it exists.

    ``replace`` is the exception, for files that are derived from the rest and may be made again, and
    ``delete``, which only ``gc`` and ``repair`` use (stages/COMMIT.md says why that is safe), and a remote
    generator for a purchase that it meant and did not make. Every method raises StorageError when the
    store cannot do it.
    """

    uri: str

    def put(self, key: str, data: bytes) -> bool:
        """Create ``key``; False if it exists already (then nothing is written)."""

    def put_file(self, key: str, path: Path) -> bool:
        """Create ``key`` from a local file; False if it exists already."""

    def replace(self, key: str, data: bytes) -> None:
        """Write ``key`` whether or not it exists."""

    def get(self, key: str) -> bytes:
        """Return all bytes of ``key``."""

    def open(self, key: str) -> BinaryIO:
        """Return a seekable reader of ``key``; the caller closes it."""

    def size(self, key: str) -> int | None:
        """Return the size of ``key`` in bytes, None if it does not exist."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects whose key begins with ``prefix``, in order of their keys.

        What lies under TEMPORARY is yielded for that prefix only.
        """

    def delete(self, key: str) -> None:
        """Remove ``key``; nothing happens if it does not exist."""


def checked(key: str, uri: str) -> str:
    """Return ``key`` if it stays below the store's address. Raises StorageError."""
    if key.startswith("/") or ".." in key.split("/"):
        raise StorageError(f"{key}: leaves the store {uri}: keys are relative and have no '..'")
    return key


class RangeReader(io.RawIOBase):
    """A seekable reader over a store that can read byte ranges."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def read_range(self, start: int, end: int) -> bytes:
        """Return bytes [start, end)."""
        raise NotImplementedError

    def readable(self) -> bool:  # noqa: D102
        return True

    def seekable(self) -> bool:  # noqa: D102
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:  # noqa: D102
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # noqa: D102
        end = min(self._size, self._position + len(buffer))
        if end <= self._position:
            return 0
        data = self.read_range(self._position, end)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
