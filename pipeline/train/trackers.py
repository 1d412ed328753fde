"""Where a training is watched: TensorBoard, Weights & Biases, trackio. log.jsonl has it all without them.

A resumed training goes on in the same run of a tracker: which that is, and the last step it was told, lies in
``tracker-<name>.json`` of the training's folder. Steps that are done again after a kill are the same to the
bit, so they are not told twice.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline.train.settings import TrackerName

PROJECT = "vipo"
PACKAGES: Mapping[TrackerName, str] = {"tensorboard": "vipo[train]", "wandb": "wandb", "trackio": "trackio"}
"""What installs each."""


class Tracker(Protocol):
    """Something that shows figures and pictures by step; steps never go down."""

    def show(self, step: int, figures: Mapping[str, float], picture: Image | None) -> None:
        """Show what is known at ``step``."""

    def close(self) -> None:
        """Send what is not sent yet."""


class Trackers:
    """Those of a training, by name. Raises ConfigError for one that is not installed or cannot start."""

    def __init__(self, names: Sequence[TrackerName], folder: Path, about: Mapping[str, Any]) -> None:
        for name in names:
            if find_spec(name) is None:
                remedy = f"pip install '{PACKAGES[name]}', or leave it out"
                raise ConfigError(f"output.trackers: {name} is not installed: {remedy}")
        kinds: dict[TrackerName, Callable[..., Tracker]] = {
            "tensorboard": TensorBoard,
            "wandb": partial(Client, "wandb", id="{run}", dir="{folder}"),
            "trackio": partial(Client, "trackio"),
        }
        self._held = [kinds[name](folder, about) for name in names]

    def line(self, line: Mapping[str, Any]) -> None:
        """Show a line of the log."""
        figures = dict(_figures(line))
        for one in self._held:
            one.show(line["step"], figures, None)

    def picture(self, step: int, picture: Image) -> None:
        """Show a sheet of samples."""
        for one in self._held:
            one.show(step, {}, picture)

    def close(self) -> None:
        """Send what is not sent yet."""
        for one in self._held:
            one.close()


class TensorBoard:
    """Event files; a new writer hides what was written before of its first step and of later ones."""

    def __init__(self, folder: Path, _about: Mapping[str, Any]) -> None:
        self._folder = folder / "tensorboard"
        self._writer: Any = None

    def show(self, step: int, figures: Mapping[str, float], picture: Image | None) -> None:
        """See ``Tracker``."""
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        if picture is not None:
            self._writer.add_image("samples", np.asarray(picture), step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """See ``Tracker``."""
        if self._writer is not None:
            self._writer.close()


class Client:
    """W&B or trackio, whose clients are alike."""

    def __init__(self, name: TrackerName, folder: Path, about: Mapping[str, Any], **options: Any) -> None:
        self._client = import_module(name)
        self._path = folder / f"tracker-{name}.json"
        told = json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}
        self._told: dict[str, Any] = {"run": f"{folder.name}-{uuid.uuid4().hex[:8]}", **told}
        refusals = (OSError, ValueError, getattr(self._client, "Error", OSError))
        place = {key: value.format(run=self._told["run"], folder=folder) for key, value in options.items()}
        try:
            self._run = self._client.init(
                project=PROJECT, name=self._told["run"], config=dict(about), resume="allow", **place
            )
        except refusals as error:
            cause = " ".join(str(error).split())[:160]
            remedy = "log in, set it to offline, or leave it out"
            raise ConfigError(f"output.trackers: {name} does not start ({cause}): {remedy}") from error

    def show(self, step: int, figures: Mapping[str, float], picture: Image | None) -> None:
        """See ``Tracker``."""
        kind = "picture" if picture else "figures"
        if step <= self._told.get(kind, -1):
            return
        # First, so that a kill between loses a line and does not double one.
        self._told[kind] = step
        self._path.write_text(json.dumps(self._told), encoding="utf-8")
        shown = {"samples": self._client.Image(picture)} if picture else dict(figures)
        self._run.log(shown, step=step)

    def close(self) -> None:
        """See ``Tracker``."""
        self._run.finish()


def _figures(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a line, ``<name>/<part>`` of several; texts and what is not known are left out."""
    for name, value in line.items():
        many = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(many, dict):
            yield from _figures({f"{name}/{part}": one for part, one in many.items()})
        elif isinstance(many, (int, float)) and name != "step":
            yield name, float(many)
