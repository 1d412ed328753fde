"""Notes which parts Ray's workers begin and put, for ``tests.bench.chaos``.

A worker asks for a part's size before it begins the unit; one line "begun KEY", then "put KEY" or, where
another worker was first, "dropped KEY".
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

LEDGER = "VIPO_CHAOS_LEDGER"


def _note(word: str, key: str) -> None:
    with Path(os.environ[LEDGER]).open("a") as ledger:
        ledger.write(f"{word} {key}\n")


def _watch(store: type[Any]) -> None:
    whole_size, whole_put = store.size, store.put

    def size(self: Any, key: str) -> int | None:
        found: int | None = whole_size(self, key)
        if found is None and key.endswith(".parquet"):
            _note("begun", key)
        return found

    def put(self: Any, key: str, data: bytes) -> bool:
        is_first: bool = whole_put(self, key, data)
        if key.endswith(".parquet"):
            _note("put" if is_first else "dropped", key)
        return is_first

    store.size, store.put = size, put


if LEDGER in os.environ and any("default_worker" in word for word in sys.orig_argv):
    from pipeline.storage.local import LocalStore
    from pipeline.storage.s3 import S3Store

    _watch(LocalStore)
    _watch(S3Store)
