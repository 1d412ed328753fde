"""Kills or holds a process at an exact call of the local store.

Every Python started with this folder in PYTHONPATH runs this first: drivers, local workers and Ray's.
VIPO_FAULT holds the fields of ``tests.e2e.world.Fault`` as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.storage.local import LocalStore

LONGEST = 300.0
"""Seconds a process is held at most: a test that died must not leave it behind."""


def _install(fault: dict[str, Any]) -> None:
    whole = getattr(LocalStore, fault["method"])

    def faulty(self: LocalStore, *given: Any) -> Any:
        key = next(item for item in given if isinstance(item, str))
        here = key.startswith(fault["prefix"]) and key.endswith(fault["suffix"])
        if here and fault["when"] == "before":
            _strike(fault)
        result = whole(self, *given)
        if here and fault["when"] == "after":
            _strike(fault)
        return result

    setattr(LocalStore, fault["method"], faulty)


def _strike(fault: dict[str, Any]) -> None:
    folder = Path(fault["folder"])
    count = _count(folder)
    if count == fault["nth"] or (count > fault["nth"] and fault["again"]):
        ACTS[fault["act"]](folder)


def _count(folder: Path) -> int:
    """Return how often any process has come here, this time included."""
    count = 1
    while True:
        try:
            (folder / f"call-{count}").touch(exist_ok=False)
        except FileExistsError:
            count += 1
        else:
            return count


def _kill(folder: Path) -> None:
    del folder
    os.kill(os.getpid(), signal.SIGKILL)


def _hold(folder: Path) -> None:
    draft = folder / "draft"
    draft.write_text(str(os.getpid()))
    draft.rename(folder / "held")
    deadline = time.monotonic() + LONGEST
    while not (folder / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


ACTS: dict[str, Callable[[Path], None]] = {"kill": _kill, "hold": _hold}

if "VIPO_FAULT" in os.environ:
    _install(json.loads(os.environ["VIPO_FAULT"]))
