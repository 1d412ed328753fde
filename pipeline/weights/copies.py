"""This machine's copies of weights that lie in a bucket: made once, whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pipeline.errors import CorruptError, StorageError
from pipeline.storage import Store
from pipeline.storage.local import LocalStore
from pipeline.weights import files


def copied(store: Store, repo: str, revision: str) -> Path:
    """Return the copy of ``store`` on this machine: one process makes it, the others wait for it.

    It lies below VIPO_CACHE (~/.cache/vipo). A copy in the making has another name and keeps its finished
    files when it is cut short. Raises StorageError (unreachable, no room), ConfigError (another revision) or
    CorruptError (other bytes).
    """
    cache = Path(os.environ.get("VIPO_CACHE") or Path.home() / ".cache" / "vipo")
    target = cache / "weights" / repo / revision.replace(":", "-")
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target.with_name(f"{target.name}.lock")):
            if not target.is_dir():
                part = target.with_name(f"{target.name}.part")
                part.mkdir(exist_ok=True)
                _copy(store, revision, part)
                part.rename(target)
    except OSError as error:
        raise StorageError(
            f"{target}: cannot be written ({error.strerror}): free space or set VIPO_CACHE to another folder"
        ) from error
    return target


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keep other processes of this machine out; the system frees the lock of one that dies."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _copy(store: Store, revision: str, part: Path) -> None:
    """Copy what is not there yet, and verify everything that is."""
    sizes = files.sizes(store)
    files.require_revision(store, sizes, revision)
    there = {entry.key for entry in LocalStore(part).list("") if sizes.get(entry.key) == entry.size}
    wanted = [name for name in sizes if name not in there]
    need, free = sum(sizes[name] for name in wanted), shutil.disk_usage(part).free
    if need > free:
        raise StorageError(
            f"{store.uri}: {need / 1e9:.1f} GB to copy, {free / 1e9:.1f} GB free in {part.parent}: free "
            "space or set VIPO_CACHE to another folder"
        )
    with ThreadPoolExecutor(files.THREADS) as pool:
        list(pool.map(partial(_fetch, store, part), wanted))
    _compare(store, sizes, part, revision)


def _fetch(store: Store, part: Path, name: str) -> None:
    path = part / name
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    with store.open(name) as source, temporary.open("wb") as sink:
        shutil.copyfileobj(source, sink, files.CHUNK)
    temporary.replace(path)


def _compare(store: Store, sizes: Mapping[str, int], part: Path, revision: str) -> None:
    """Compare every byte that was copied with the hashes recorded, or with the digest pinned."""
    with ThreadPoolExecutor(files.THREADS) as pool:
        hashes = dict(zip(sizes, pool.map(partial(files.sha256, LocalStore(part)), sizes), strict=True))
    recorded = files.records(store, sizes)
    wrong = [
        name for name, (_, tag) in recorded.items() if tag not in (hashes[name], _git_hash(part / name, tag))
    ]
    if wrong or (not recorded and files.digest(hashes) != revision):
        shutil.rmtree(part)
        what = f"hash of {wrong[0]}" if wrong else "digest"
        raise CorruptError(
            f"{store.uri}: the {what} is not the one {'recorded' if wrong else 'pinned'}: upload it again"
        )


def _git_hash(path: Path, tag: str) -> str | None:
    """Return the hash by which git knows a file if ``tag`` is such a hash: the hub's tag of small files."""
    if len(tag) != 40:
        return None
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
