"""A training by Ray Train: the same ``train`` in workers that Ray places, and starts anew if one dies.

They go on from our own checkpoints in output.folder, and by its log they are followed from here: it must be
storage that this machine and all nodes have mounted at one place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from pipeline.errors import ConfigError, CorruptError, MediaError, WorkerError
from pipeline.train.loop import Progress, train
from pipeline.train.meters import read_log
from pipeline.train.parallel import BACKENDS, PATIENCE, refuse_split
from pipeline.train.settings import Training

RESTARTS = 3
"""How often workers are started anew after one of them died."""

REFUSED = "refused.txt"
"""Why a training is not begun anew: what is wrong with settings or data is wrong the next time too."""

PAUSE = 1.0


def train_on_ray(
    training: Training, *, workers: int, until: int | None = None, progress: Progress = lambda _: None
) -> Path:
    """Train by ``workers`` processes of the connected cluster, a GPU or a core each; see ``train``.

    Raises ConfigError, and WorkerError if workers died more than RESTARTS times.
    """
    refuse_split(training, workers)
    folder = Path(training.output.folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REFUSED).unlink(missing_ok=True)
    progress({"parallel": _room(training, workers)})
    _follow(_started(training, folder, workers, until), folder, progress)
    if (folder / REFUSED).exists():
        raise ConfigError((folder / REFUSED).read_text(encoding="utf-8"))
    ended = until is None or until >= training.optim.steps
    return Path(training.output.folder) / ("export" if ended else "checkpoints")


def _room(training: Training, workers: int) -> str:
    """Say what is waited for: Ray starts no worker before there is room for all."""
    import ray

    kind = "GPU" if training.device == "cuda" else "CPU"
    has = ray.cluster_resources().get(kind, 0)  # type: ignore[no-untyped-call]
    return f"Ray Train: {workers} workers of 1 {kind} each; the cluster has {has:g} in all"


def _started(training: Training, folder: Path, workers: int, until: int | None) -> Future[object]:
    """Start a training beside this thread, which Ctrl-C then ends."""
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise ConfigError("--ray-workers needs Ray Train: pip install 'vipo[ray]'") from error
    trainer = TorchTrainer(
        _work,
        train_loop_config={"training": training, "until": until, "here": str(Path.cwd())},
        torch_config=TorchConfig(backend=BACKENDS[training.device], timeout_s=int(PATIENCE.total_seconds())),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=training.device == "cuda"),
        run_config=RunConfig(
            name="ray", storage_path=str(folder), failure_config=FailureConfig(max_failures=RESTARTS)
        ),
    )
    done: Future[object] = Future()

    def fit() -> None:
        try:
            done.set_result(trainer.fit())
        except Exception as error:  # noqa: BLE001
            done.set_exception(error)

    Thread(target=fit, daemon=True).start()
    return done


def _work(given: Mapping[str, Any]) -> None:
    """Train, as one of Ray's workers."""
    with suppress(FileNotFoundError):  # for a file without relative paths; Ray puts workers elsewhere
        os.chdir(given["here"])
    training: Training = given["training"]
    refused = Path(training.output.folder) / REFUSED
    if refused.exists():
        return
    try:
        train(training, until=given["until"])
    except (ConfigError, CorruptError, MediaError) as error:
        refused.write_text(str(error), encoding="utf-8")
        raise


def _follow(done: Future[object], folder: Path, progress: Progress) -> None:
    """Give the lines of the log to ``progress`` until all is done. Raises WorkerError."""
    from ray.train import TrainingFailedError

    shown = max((line["step"] for line in read_log(folder)), default=0)
    while True:
        ended = wait([done], timeout=PAUSE).done
        for line in read_log(folder):
            if line["step"] > shown:
                progress(line)
                shown = line["step"]
        if ended:
            break
    try:
        done.result()
    except TrainingFailedError as error:
        causes = [*getattr(error, "worker_failures", {}).values(), error]
        said = " ".join(str(causes[0]).split())[-300:]
        raise WorkerError(
            f"workers failed {RESTARTS + 1} times, at last by: {said}: the same command goes on from the "
            "last checkpoint"
        ) from error
