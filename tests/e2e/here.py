"""Builds in this process, and damage to runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console

from pipeline import api
from pipeline.config import Settings
from pipeline.runners.base import Bench, Done, Need, Task, Worker
from pipeline.runners.build import Build
from pipeline.runners.progress import Display
from pipeline.stages import Resources
from pipeline.stages.check import check
from pipeline.storage import open_store
from tests.e2e.world import Project

NOW = -0.1
"""Hours: S3 dates to the second, so that what was written just now counts as older than this."""


class Here:
    """One worker in this process, which notes the stages of the units that it does."""

    def __init__(self, uri: str, did: list[str]) -> None:
        self._bench, self._did = Bench(uri), did
        self._worker = Worker()

    def hire(self, needs: Mapping[Resources, Need]) -> None:
        pass

    def idle(self) -> Sequence[Worker]:
        return [] if self._worker.task else [self._worker]

    def staff(self) -> Mapping[str, int]:
        return {self._worker.open: 1}

    def start(self, worker: Worker, task: Task) -> bool:
        worker.task, worker.open = task, task.stage.folder
        return True

    def wait(self) -> list[tuple[Task, Done]]:
        task, self._worker.task = self._worker.task, None
        assert task
        self._did.append(f"{task.stage.name}/{task.stage.lane}")
        return [(task, self._bench.do(task.stage, task.unit))]

    def close(self) -> None:
        pass


def build(settings: Settings, run: Path | str) -> set[str]:
    """Build in this process; return the lanes that had units to do."""
    did: list[str] = []
    check(settings)
    store = open_store(str(run))
    with StringIO() as file, Display(store, Console(file=file)) as display:
        driver = Build(settings, store, workers=Here(str(run), did), display=display)
        failures = driver.run().failures
        assert not failures, failures
    return set(did)


def flip(path: Path, place: float = 0.3) -> None:
    """Change one bit at ``place`` of a file."""
    data = bytearray(path.read_bytes())
    data[round(len(data) * place)] ^= 4
    path.write_bytes(data)


def flip_page(path: Path) -> None:
    """Change one bit of the rows of a part; a good half of a small part's bytes say nothing of its rows."""
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    flip(path, (start + column.total_compressed_size - 1) / path.stat().st_size)


def cut(path: Path) -> None:
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def assert_whole(run: Path | str, project: Project) -> None:
    """Verify, report, status and repair find nothing amiss, and a build nothing to do."""
    assert api.verify(str(run)).pairs > 0
    assert api.report(str(run))
    assert build(project.settings(), run) == set()
    assert api.status(str(run)).finished
    assert api.repair(str(run)).whole
