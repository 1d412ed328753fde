"""The file of pins: one revision for each repository of weights."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.config import Pin
from pipeline.errors import ConfigError, StorageError

KEYS = ("repo", "revision", "source")
REVISION = re.compile(r"[0-9a-f]{40}|sha256:[0-9a-f]{64}")

HEADER = """\
# The one revision of each repository of weights that a build loads; `vipo weights pin` writes this file.
# source: where the revision was read. A repository that is not named here is not pinned, and is refused.
"""


def read_pins(path: Path) -> tuple[Pin, ...]:
    """Read a file of pins. Raises ConfigError naming the entry."""
    return tuple(Pin(repo=entry["repo"], revision=entry["revision"]) for entry in _entries(path))


def write_pins(path: Path, pins: Iterable[Pin], source: str) -> None:
    """Put ``pins``, which were read from ``source``, into a file; pins of other repositories stay."""
    entries = {entry["repo"]: entry for entry in (_entries(path) if path.is_file() else ())}
    entries |= {pin.repo: {"repo": pin.repo, "revision": pin.revision, "source": source} for pin in pins}
    blocks = [
        "[[pin]]\n" + "".join(f"{key} = {_quoted(entry[key])}\n" for key in KEYS)
        for _, entry in sorted(entries.items())
    ]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text("\n".join((HEADER, *blocks)), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror}): mend disk or rights") from error


def _quoted(text: str) -> str:
    """Return a TOML string: JSON's, but for what JSON writes as pairs of surrogates, and for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _entries(path: Path) -> list[dict[str, str]]:
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("pin", [])
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as pins ({error}): run `vipo weights pin`") from error
    entries = entries if isinstance(entries, list) else [entries]
    for entry in entries:
        if not _valid(entry):
            raise ConfigError(
                f"{path}: {entry!r:.200} is no pin: it has repo, revision (a commit of 40 hex digits, or "
                "sha256: and 64) and source: run `vipo weights pin`"
            )
    names = [entry["repo"] for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"{path}: {twice} is pinned twice: remove one")
    return list(entries)


def _valid(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and set(entry) == set(KEYS)
        and all(isinstance(value, str) for value in entry.values())
        and REVISION.fullmatch(entry["revision"]) is not None
    )
