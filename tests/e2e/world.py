"""A small project to build, the command line as a real process, and how to compare what came out."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import api
from pipeline.config import Settings
from pipeline.dataset.manifest import read_manifest
from pipeline.records import Prompt, ShardEntry
from pipeline.stages import read_part
from pipeline.storage import open_store

PATIENCE = 180.0
"""Seconds to wait for what takes one or two: this machine may be busy."""

DERIVED = ("progress/", "report.html", "settings.json", ".tmp/")
"""What a run holds besides its data: may differ between runners and moments."""

IMAGES = """\
name = "alignment"
title = "Alignment, small"
modality = "image"
size = { width = 256, height = 256 }
quota = 12

[rubric]
question = "Which image shows what the prompt says?"
criteria = ["Every object is there."]

[policy]
kind = "majority"
votes = 1

[embedded]
generators = ["scene/steady", "scene/hasty", "scene/dreamy"]
judges = ["objects-pieces", "objects-palette"]

[[embedded.recipes]]
kind = "across_models"
generations = 3
share = 0.6

[[embedded.recipes]]
kind = "perturbed_prompt"
share = 0.3

[[embedded.recipes]]
kind = "gold"
winner = "scene/flawless"
loser = "scene/flawed"
share = 0.1
"""

VIDEOS = """\
name = "motion_quality"
title = "Motion, small"
modality = "video"
size = { width = 320, height = 180, frames = 9, fps = 8 }
quota = 2

[rubric]
question = "Which video moves better?"
criteria = ["Motion is smooth."]

[policy]
kind = "majority"
votes = 1

[embedded]
generators = ["scene/hasty-video", "scene/gaudy-video"]
judges = ["motion-trajectory", "motion-cadence"]

[[embedded.recipes]]
kind = "across_models"
"""

PROFILE = """\
cast = "embedded"
runner = "local"
workers = 1
bucket_size = 2
attempts = 2
expected_kept = 0.5
shard_bytes = 250_000
"""


@dataclass(frozen=True, slots=True)
class Project:
    """A folder of categories and a profile: what a user of vipo writes."""

    folder: Path

    @classmethod
    def write(cls, folder: Path, *categories: str, profile: str = PROFILE) -> Project:
        """Write ``categories`` (their TOML) and a profile below ``folder``."""
        (folder / "categories").mkdir(parents=True)
        for text in categories:
            name = text.split('"')[1]
            (folder / "categories" / f"{name}.toml").write_text(text)
        (folder / "small.toml").write_text(profile)
        return cls(folder)

    @property
    def categories(self) -> Path:
        return self.folder / "categories"

    @property
    def profile(self) -> Path:
        return self.folder / "small.toml"

    def settings(self, **changes: Any) -> Settings:
        return api.load(str(self.profile), folder=self.categories, **changes)

    def build(self, run: Path | str, *extra: str) -> list[str]:
        """Return the arguments of ``vipo`` that build this project."""
        given = ["--profile", str(self.profile), "--categories", str(self.categories), "--run", str(run)]
        return ["build", *given, *extra]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """At the ``nth`` call of ``method`` with a matching key, ``before`` or ``after`` it, do ``act``.

    ``kill``: that process dies by SIGKILL. ``hold``: it waits for ``release``; ``again`` strikes at
    every later call too.
    """

    folder: Path
    method: str = "put"
    prefix: str = ""
    suffix: str = ""
    when: str = "before"
    nth: int = 1
    act: str = "kill"
    again: bool = False

    def environment(self) -> dict[str, str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        given = json.dumps({**asdict(self), "folder": str(self.folder)})
        path = [str(Path(__file__).parent / "faults"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"VIPO_FAULT": given, "PYTHONPATH": os.pathsep.join(path)}

    @property
    def struck(self) -> bool:
        """Whether the call was reached."""
        return (self.folder / f"call-{self.nth}").exists()

    def held(self) -> int:
        """Wait until a process is held; return its id."""
        held = self.folder / "held"
        until(held.exists, "a process is held at the fault")
        return int(held.read_text())

    def release(self) -> None:
        (self.folder / "go").touch()


class Command:
    """``vipo`` running as a process of its own session, with all that it starts."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._tag = f"vipo-test-{uuid.uuid4().hex}"
        # Files, not pipes: a worker that outlives its driver would keep a pipe open.
        self._written = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            env={**os.environ, **QUIET, "VIPO_TEST_TAG": self._tag, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._written[0],
            stderr=self._written[1],
            start_new_session=True,
        )

    def end(self) -> int:
        """Wait for its end; return the exit status."""
        try:
            return self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise

    def kill(self, *, group: bool = False) -> None:
        """SIGKILL the driver, or the driver and the processes of its group, while it runs."""
        assert self.process.poll() is None, f"it ended before it was killed: {self.errors}"
        (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)
        assert self.end() == -signal.SIGKILL

    def others(self) -> dict[int, str]:
        """Return the living processes that it started, directly or not, by id with their command lines."""
        return {pid: line for pid, line in _tagged(self._tag) if pid != self.process.pid}

    @property
    def output(self) -> str:
        return self._read(0)

    @property
    def errors(self) -> str:
        return self._read(1)

    def _read(self, number: int) -> str:
        self._written[number].seek(0)
        return self._written[number].read()


QUIET = {
    "COLUMNS": "200",
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A busy machine makes Ray's processes miss heartbeats.
    "RAY_health_check_initial_delay_ms": "60000",
    "RAY_health_check_period_ms": "30000",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "10",
}


def vipo(*arguments: str, environment: Mapping[str, str] | None = None) -> Command:
    """Run ``vipo`` to its end."""
    command = Command(*arguments, environment=environment)
    command.end()
    return command


def built(command: Command) -> Command:
    """Wait for a build that must succeed."""
    status = command.end()
    assert status == 0, command.errors
    return command


def until(holds: Callable[[], object], what: str, *, seconds: float = PATIENCE) -> None:
    """Wait until something observable ``holds``."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{seconds:.0f} s passed before this: {what}"
        time.sleep(0.005)


def dead(pid: int) -> bool:
    """Say whether a process has ended and its files are closed; its parent may not have noticed yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def tree(run: Path | str) -> dict[str, str]:
    """Return the SHA-256 of every part, medium, shard, index and manifest of a run by its key."""
    store = open_store(str(run))
    return {
        entry.key: hashlib.sha256(store.get(entry.key)).hexdigest()
        for entry in store.list("")
        if not entry.key.startswith(DERIVED)
    }


def parts(run: Path, stage: str) -> list[Path]:
    """Return the parts of a stage that are on disk."""
    return sorted((run / stage).glob("*/*/*.parquet"))


def shipped(run: Path | str) -> list[ShardEntry]:
    """Return the rows of every index that the manifest names."""
    store = open_store(str(run))
    return [row for shard in read_manifest(store).shards for row in read_part(ShardEntry, shard.index, store)]


def prompts(run: Path) -> list[Prompt]:
    store = open_store(str(run))
    keys = [entry.key for entry in store.list("prompts/")]
    return [row for key in keys for row in read_part(Prompt, key, store)]


def _tagged(tag: str) -> list[tuple[int, str]]:
    """Find processes by a variable of their environment: it outlives parents and sessions."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if tag.encode() in (folder / "environ").read_bytes():
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append((int(folder.name), line))
        except OSError:
            continue
    return found
