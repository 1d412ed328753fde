"""The files of one model in a folder or prefix: which count, which revision they are, are they whole."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from pipeline.errors import ConfigError, CorruptError, StorageError
from pipeline.storage import Store
from pipeline.storage.local import LocalStore

LOADABLE = ("*.json", "*.txt", "*.model", "*.jinja", "model*.safetensors", "*/*.safetensors")
"""Files that models load. A safetensors file at the top that is no ``model*`` is a pipeline in one file."""

IGNORED = (".*", "*.fp16*", "*.bf16*")
"""Hidden files, and second copies of the weights in another precision."""

RECORD = ".cache/huggingface/download/"
"""Where ``hf download --local-dir`` records of each file: commit, hash, time; one a line."""

COMMIT = re.compile(r"[0-9a-f]{40}")
HEADER_LIMIT = 100_000_000  # bytes; the limit of the safetensors format
CHUNK = 16 << 20
THREADS = 8


def loadable(name: str) -> bool:
    """Say whether a model may load the file of this path."""
    return any(fnmatchcase(name, rule) for rule in LOADABLE) and not any(
        fnmatchcase(name, rule) for rule in IGNORED
    )


def sizes(store: Store) -> dict[str, int]:
    """Return the bytes of each loadable file of a place, by path. Raises StorageError if none has weights."""
    found = {entry.key: entry.size for entry in store.list("") if loadable(entry.key)}
    if not any(name.endswith(".safetensors") for name in found):
        raise StorageError(
            f"{store.uri}: no safetensors files: put the weights there (hf download ... --local-dir), or "
            "point the profile's key weights at the folder or prefix that holds them"
        )
    return found


def require_revision(store: Store, names: Iterable[str], pinned: str) -> None:
    """Refuse a place that holds another revision. One that records none is taken for the digest pinned."""
    found = held(store, names)
    if found == pinned or (found is None and pinned.startswith("sha256:")):
        return
    raise ConfigError(
        f"{store.uri}: holds {found or 'a revision that it does not record'}, pinned is {pinned}: put the "
        "pinned one there (hf download ... --revision ... --local-dir ...), or pin this one "
        "(`vipo weights pin`)"
    )


def held(store: Store, names: Iterable[str]) -> str | None:
    """Return the commit that a place says it holds, None if it says nothing."""
    if isinstance(store, LocalStore):
        folder = store.root.resolve()
        if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name):
            return folder.name
    commits = {commit for commit, _ in records(store, names).values()}
    if len(commits) > 1:
        raise CorruptError(f"{store.uri}: files of {len(commits)} commits: download one of them whole")
    return commits.pop() if commits else None


def records(store: Store, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return commit and hash of each file as ``hf download`` recorded them; nothing unless it did of all."""
    keys = {name: f"{RECORD}{name}.metadata" for name in names}
    if not {entry.key for entry in store.list(RECORD)}.issuperset(keys.values()):
        return {}
    lines = {name: store.get(key).decode(errors="replace").split() for name, key in keys.items()}
    if any(len(line) < 2 or not COMMIT.fullmatch(line[0]) for line in lines.values()):
        return {}
    return {name: (line[0], line[1]) for name, line in lines.items()}


def require_whole(store: Store, found: Mapping[str, int], *, borrows: bool) -> None:
    """Refuse a place where a component, a file that an index names, or the end of a file is missing.

    ``borrows``: another repository holds some components. Raises CorruptError.
    """
    missing = sorted({*([] if borrows else _components(store, found)), *_unindexed(store, found)})
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise CorruptError(f"{store.uri}: lacks {', '.join(missing[:3])}{more}: download it again")
    tensors = [name for name in found if name.endswith(".safetensors")]
    with ThreadPoolExecutor(THREADS) as pool:
        for name, length in zip(tensors, pool.map(partial(_length, store), tensors), strict=True):
            if found[name] != length:
                raise CorruptError(
                    f"{store.uri}/{name}: {found[name]:,} bytes, by its header {length:,}: download it again"
                )


def digest(hashes: Mapping[str, str]) -> str:
    """Return the revision of files that record none, from the SHA-256 of each."""
    listing = "".join(f"{value}  {name}\n" for name, value in sorted(hashes.items()))
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"


def sha256(store: Store, name: str) -> str:
    """Return the SHA-256 of one file in hex."""
    known = hashlib.sha256()
    with store.open(name) as file:
        while data := file.read(CHUNK):
            known.update(data)
    return known.hexdigest()


def _components(store: Store, found: Mapping[str, int]) -> Iterator[str]:
    """Yield the components of a pipeline that have no files, or a configuration but no weights."""
    if "model_index.json" not in found:
        return
    for name, value in _json(store, "model_index.json").items():
        if not (isinstance(value, list) and [type(word) for word in value] == [str, str]):
            continue  # a setting, or a component that the pipeline does without
        own = [file for file in found if file.startswith(f"{name}/")]
        bare = f"{name}/config.json" in own and not any(file.endswith(".safetensors") for file in own)
        if not own or (bare and not re.search("Tokenizer|Processor", value[1])):
            yield f"{name}/"


def _unindexed(store: Store, found: Mapping[str, int]) -> Iterator[str]:
    """Yield the files that an index of safetensors names and that are not there."""
    for name in found:
        if name.endswith(".safetensors.index.json"):
            above = name[: name.rfind("/") + 1]
            weight_map: Mapping[str, str] = _json(store, name).get("weight_map", {})
            yield from (above + file for file in set(weight_map.values()) if above + file not in found)


def _json(store: Store, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(store.get(name)))
    except (ValueError, TypeError) as error:
        raise CorruptError(f"{store.uri}/{name}: not readable as JSON: download it again") from error


def _length(store: Store, name: str) -> int:
    """Return how long a safetensors file is by its header: 8 bytes, the header, the tensors."""
    with store.open(name) as file:
        header = int.from_bytes(file.read(8), "little")
        try:
            tensors = json.loads(file.read(header) if header <= HEADER_LIMIT else b"")
            ends = [value["data_offsets"][1] for key, value in tensors.items() if key != "__metadata__"]
            return 8 + header + max(ends, default=0)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise CorruptError(f"{store.uri}/{name}: no safetensors header: download it again") from None
