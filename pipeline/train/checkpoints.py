"""Checkpoints: whole or not there, as safetensors; a training goes on from the last one to the bit.

A checkpoint is a folder ``checkpoints/<updates>``: trained weights, the optimiser's state, averaged weights
if there are any, and state.json. It is written beside, synced and renamed. Order, timesteps, noise and
learning rate are functions of the number of updates, so there is no other state.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, CorruptError
from pipeline.train.settings import Training, to_json

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

UNFINISHED = ".tmp-"


def save(
    training: Training,
    step: int,
    trained: Mapping[str, nn.Parameter],
    optimizer: optim.Optimizer,
    averaged: Mapping[str, Tensor],
) -> None:
    """Write the checkpoint after ``step`` updates and remove those beyond the last ``keep``."""
    from safetensors.torch import save_file

    folder = Path(training.output.folder) / "checkpoints"
    target, made = folder / f"{step:08d}", folder / f"{UNFINISHED}{step:08d}"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    save_file(
        {name: value.detach().contiguous() for name, value in trained.items()}, made / "weights.safetensors"
    )
    save_file(_flat(trained, optimizer), made / "optimizer.safetensors")
    if averaged:
        save_file(dict(averaged), made / "averaged.safetensors")
    state = {"step": step, "fingerprint": training.fingerprint}
    (made / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (made / "training.json").write_text(to_json(training), encoding="utf-8")
    for path in (*made.iterdir(), made):
        _sync(path)
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)
    _sync(folder)
    for old in _held(folder)[: -training.output.keep]:
        shutil.rmtree(old)


def resume(
    training: Training,
    trained: Mapping[str, nn.Parameter],
    optimizer: optim.Optimizer,
    averaged: Mapping[str, Tensor],
) -> int:
    """Load the last checkpoint into what is given; return its number of updates, 0 if there is none.

    Raises ConfigError if other settings wrote it, CorruptError if it cannot be read.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    held = _held(Path(training.output.folder) / "checkpoints")
    if not held:
        return 0
    try:
        state = json.loads((held[-1] / "state.json").read_bytes())
        if state["fingerprint"] != training.fingerprint:
            raise ConfigError(
                f"{held[-1]}: was written under other settings (its training.json says which): restore them, "
                "or set another output.folder"
            )
        weights = load_file(held[-1] / "weights.safetensors")
        moments = load_file(held[-1] / "optimizer.safetensors")
        means = load_file(held[-1] / "averaged.safetensors") if averaged else {}
        with torch.no_grad():
            for name, value in trained.items():
                value.copy_(weights[name])
            for name, mean in averaged.items():
                mean.copy_(means[name])
        _restore(trained, optimizer, moments)
        return int(state["step"])
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CorruptError(
            f"{held[-1]}: cannot be read ({error!r:.200}): delete it, the one before is used"
        ) from error


def _flat(trained: Mapping[str, nn.Parameter], optimizer: optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's state by ``<parameter>|<part>``."""
    import torch

    flat: dict[str, Tensor] = {}
    for name, value in trained.items():
        for part, held in optimizer.state[value].items():
            flat[f"{name}|{part}"] = torch.as_tensor(held).detach().contiguous()
    return flat


def _restore(
    trained: Mapping[str, nn.Parameter], optimizer: optim.Optimizer, moments: Mapping[str, Tensor]
) -> None:
    state: dict[str, dict[str, Any]] = {name: {} for name in trained}
    for key, value in moments.items():
        name, _, part = key.rpartition("|")
        state[name][part] = value
    for name, parts in state.items():
        of = trained[name]
        optimizer.state[of] = {
            part: value if part == "step" and value.ndim == 0 else value.to(of.device)
            for part, value in parts.items()
        }


def _held(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.isdigit())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
