"""A store in a local or shared folder."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import StorageError
from pipeline.storage.base import TEMPORARY, Entry, checked


class LocalStore:
    """Files are written to a temporary name, synced, then linked: link() fails if the name is taken.

    Unfinished files lie under TEMPORARY, on the same file system as the files that they become.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.uri = str(self.root)

    def put(self, key: str, data: bytes) -> bool:
        """Create ``key``; False if it exists already."""
        if self._path(key).is_file():
            return False
        with self._temporary(key) as temporary:
            temporary.write_bytes(data)
            return self._publish(temporary, key)

    def put_file(self, key: str, path: Path) -> bool:
        """Create ``key`` from a local file; False if it exists already."""
        with self._temporary(key) as temporary:
            shutil.copyfile(path, temporary)
            return self._publish(temporary, key)

    def replace(self, key: str, data: bytes) -> None:
        """Write ``key`` whether or not it exists."""
        with self._temporary(key) as temporary:
            temporary.write_bytes(data)
            sync(temporary)
            temporary.replace(self._path(key))

    def get(self, key: str) -> bytes:
        """Return all bytes of ``key``."""
        with self.open(key) as file, self._errors(key):
            return file.read()

    def open(self, key: str) -> BinaryIO:
        """Return a seekable reader of ``key``."""
        try:
            return self._path(key).open("rb")
        except OSError as error:
            raise StorageError(f"{self._path(key)}: cannot be read ({error.strerror})") from error

    def size(self, key: str) -> int | None:
        """Return the size of ``key`` in bytes, None if it does not exist."""
        path = self._path(key)
        return path.stat().st_size if path.is_file() else None

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects whose key begins with ``prefix``, in order of their keys."""
        folder, _, start = prefix.rpartition("/")
        yield from self._walk(self.root / folder, f"{folder}/" if folder else "", start)

    def _walk(self, folder: Path, above: str, start: str) -> Iterator[Entry]:
        if not folder.is_dir():
            return
        # A folder sorts as its name with "/": object stores order whole keys, and so do we.
        with os.scandir(folder) as found:
            entries = sorted((f"{item.name}/" if item.is_dir() else item.name, item) for item in found)
        for name, item in entries:
            if not name.startswith(start) or above + name == TEMPORARY:
                continue
            if name.endswith("/"):
                yield from self._walk(Path(item.path), above + name, "")
            else:
                with suppress(FileNotFoundError):  # gone since: finished, or deleted
                    about = item.stat()
                    yield Entry(key=above + name, size=about.st_size, modified=about.st_mtime)

    def delete(self, key: str) -> None:
        """Remove ``key``; folders stay, since a writer may be about to use them."""
        with self._errors(key):
            self._path(key).unlink(missing_ok=True)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"{self._path(key)}: {error.strerror}: mend disk or permissions") from error

    def _path(self, key: str) -> Path:
        return self.root / checked(key, self.uri)

    @contextmanager
    def _temporary(self, key: str) -> Iterator[Path]:
        temporary = self.root / TEMPORARY / uuid.uuid4().hex
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            self._path(key).parent.mkdir(parents=True, exist_ok=True)
            yield temporary
        except OSError as error:
            raise StorageError(
                f"{self.uri}: cannot write {key} ({error.strerror}): free space or mend permissions, "
                "then run the same command again"
            ) from error
        finally:
            with suppress(OSError):  # a read-only store refuses even this
                temporary.unlink()

    def _publish(self, temporary: Path, key: str) -> bool:
        sync(temporary)
        path = self._path(key)
        try:
            os.link(temporary, path)
        except FileExistsError:
            if not path.is_file():
                raise
            return False
        sync(path.parent)
        return True


def sync(path: Path) -> None:
    """Force a file or a folder's entries to the disk: a commit must survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
