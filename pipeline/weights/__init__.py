"""Weights of models: which repository, which revision, where it lies, and whether all of it is there.

A row of a table names the repository; ``pinned`` adds the revision and the place from the settings. Three
places: a folder, an S3 prefix (copied once to each machine), the hub. Only loadable files count: weights as
safetensors and what configures them, never pickles or code.

What is verified when:
- ``check`` (the driver, before any worker; downloads nothing): the revision is pinned; the place holds that
  revision, every component, every file that an index of safetensors names, and each file is as long as its
  header says. Of the hub: that the commit exists and this token may read it.
- ``locate`` (a worker about to load): the same of a folder. Of a prefix: also size and hash of each file that
  is copied (the hash that ``hf download`` recorded, or the pinned digest). Of the hub: what huggingface_hub
  verifies.
- ``pin``: that the place is whole. It alone computes a folder's digest: of hundreds of GB that takes minutes.

The revision of a folder or prefix is the commit that ``hf download --local-dir`` recorded in it, or the name
of the hub cache's snapshot; else sha256:<hex>, the SHA-256 of what ``sha256sum`` prints for its loadable
files in order of their paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config import Pin, Settings
from pipeline.errors import ConfigError, VipoError
from pipeline.storage import Store, open_store
from pipeline.storage.local import LocalStore
from pipeline.weights import files, hub
from pipeline.weights.copies import copied
from pipeline.weights.pins import read_pins, write_pins

__all__ = [
    "Weights",
    "check",
    "locate",
    "pin",
    "pinned",
    "present",
    "read_pins",
    "repositories",
    "write_pins",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a model loads. Sizes in GB (1e9 bytes): ``disk`` of the files, ``memory`` of the GPU in use.

    ``repo`` is the hub's name (org/name), and the path below ``root``, a folder or s3:// prefix (None: the
    hub). ``gated``: the hub asks for a signed licence and a token. ``revision`` is a commit of the hub, or
    sha256:<hex> of the files. ``borrowed`` holds components that this repository leaves to another.
    """

    repo: str
    disk: float
    memory: float
    gated: bool = False
    revision: str | None = None
    root: str | None = None
    borrowed: Weights | None = None


def pinned(weights: Weights | None, settings: Settings) -> Weights | None:
    """Return ``weights`` with the revision that the settings pin and the place where they lie."""
    if weights is None:
        return None
    revision = next((pin.revision for pin in settings.pins if pin.repo == weights.repo), None)
    borrowed = pinned(weights.borrowed, settings)
    return replace(weights, revision=revision, root=settings.profile.weights, borrowed=borrowed)


def repositories(rows: Iterable[Weights | None]) -> list[str]:
    """Return the names of all repositories that ``rows`` load, each once, sorted."""
    every = [weights for weights in rows if weights]
    return sorted({weights.repo for weights in (*every, *(w.borrowed for w in every)) if weights})


def locate(weights: Weights) -> Path:
    """Return the folder on this machine that holds the pinned revision; a copy is made if need be.

    Several processes may ask at once: one copies, the others wait. Raises ConfigError (not pinned, another
    revision, no access), StorageError (not there, not reachable, no room) or CorruptError (cut short, or
    other bytes than recorded); each is one line with the remedy.
    """
    revision = _revision(weights)
    if weights.root is None:
        folder = hub.folder(weights.repo, revision)
    else:
        folder = _folder(_store(weights.repo, weights.root), weights.repo, revision)
    _require_whole(weights, LocalStore(folder))
    return folder


def check(weights: Weights) -> None:
    """Refuse weights that a worker could not load. Raises as ``locate`` does; downloads nothing."""
    try:
        present(weights)
    except VipoError:
        if weights.revision is None or weights.root is not None:
            raise
        hub.require_access(weights.repo, weights.revision, gated=weights.gated)
    if weights.borrowed:
        check(weights.borrowed)


def present(weights: Weights) -> str:
    """Return where the pinned revision lies whole: in a folder, below a prefix, or in the hub's cache.

    The hub itself is not asked. Raises as ``locate`` does.
    """
    revision = _revision(weights)
    if weights.root is None:
        store: Store = LocalStore(hub.folder(weights.repo, revision, download=False))
    else:
        store = _store(weights.repo, weights.root)
        files.require_revision(store, files.sizes(store), revision)
    _require_whole(weights, store)
    return store.uri


def pin(repos: Iterable[str], root: str | None) -> Iterator[Pin | VipoError]:
    """Yield the revision of each repository on the hub, or in a folder or prefix; or why it has none."""
    for repo in repos:
        try:
            revision = hub.newest(repo) if root is None else _revision_of(_store(repo, root))
        except VipoError as error:
            yield error
        else:
            yield Pin(repo=repo, revision=revision)


def _folder(store: Store, repo: str, revision: str) -> Path:
    if not isinstance(store, LocalStore):
        return copied(store, repo, revision)
    files.require_revision(store, files.sizes(store), revision)
    return store.root


def _revision_of(store: Store) -> str:
    """Return the revision that a place holds now."""
    sizes = files.sizes(store)
    files.require_whole(store, sizes, borrows=True)
    return files.held(store, sizes) or files.digest({name: files.sha256(store, name) for name in sizes})


def _revision(weights: Weights) -> str:
    if weights.revision is None:
        raise ConfigError(f"{weights.repo}: not pinned: run `vipo weights pin`")
    return weights.revision


def _store(repo: str, root: str) -> Store:
    return open_store(f"{root.rstrip('/')}/{repo}")


def _require_whole(weights: Weights, store: Store) -> None:
    files.require_whole(store, files.sizes(store), borrows=weights.borrowed is not None)
