"""Checkpoints: whole or not there, as safetensors; a training goes on from the last one to the bit.

A checkpoint is a folder ``checkpoints/<updates>``: trained weights, the optimiser's state, averaged weights
if there are any, and state.json. It is written beside, synced and renamed. Order, timesteps, noise and
learning rate are functions of the number of updates, so there is no other state.

Whatever the number of ranks and however they share a model, tensors are stored whole: the first rank writes
them, and each loads what falls to it. So a training goes on with other ranks than it began with.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, CorruptError
from pipeline.storage.local import sync
from pipeline.train.optimizers import flat, restore
from pipeline.train.parallel import Ranks, on_host, placed
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
    ranks: Ranks,
) -> None:
    """Write the checkpoint after ``step`` updates and remove those beyond the last ``keep``."""
    from safetensors.torch import save_file

    folder = Path(training.output.folder) / "checkpoints"
    target, made = folder / f"{step:08d}", folder / f"{UNFINISHED}{step:08d}"
    if ranks.first:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
    parts = {"weights": trained, "optimizer": flat(trained, optimizer), "averaged": averaged}
    for name, part in parts.items():
        held = on_host(part, ranks)
        if held:
            save_file(held, made / f"{name}.safetensors")
    if not ranks.first:
        return
    state = {"step": step, "fingerprint": training.fingerprint}
    (made / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (made / "training.json").write_text(to_json(training), encoding="utf-8")
    for path in (*made.iterdir(), made):
        sync(path)
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)
    sync(folder)
    for old in _held(folder)[: -training.output.keep]:
        shutil.rmtree(old)


def resume(
    training: Training,
    trained: Mapping[str, nn.Parameter],
    optimizer: optim.Optimizer,
    averaged: Mapping[str, Tensor],
    ranks: Ranks,
) -> int:
    """Load the last checkpoint into what is given; return its number of updates, 0 if there is none.

    Raises ConfigError if other settings wrote it, CorruptError if it cannot be read.
    """
    import torch
    from safetensors import SafetensorError

    held = ranks.gathered(_held(Path(training.output.folder) / "checkpoints"))[0]
    if not held:
        return 0
    try:
        state = json.loads((held[-1] / "state.json").read_bytes())
        if state["fingerprint"] != training.fingerprint:
            raise ConfigError(
                f"{held[-1]}: was written under other settings (its training.json says which): restore them, "
                "or set another output.folder"
            )
        with torch.no_grad():
            for name, values in (("weights", trained), ("averaged", averaged)):
                for key, value in _stored(held[-1] / f"{name}.safetensors") if values else ():
                    values[key].copy_(placed(value, values[key]))
        restore(trained, optimizer, _stored(held[-1] / "optimizer.safetensors"))
        return int(state["step"])
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CorruptError(
            f"{held[-1]}: cannot be read ({error!r:.200}): delete it, the one before is used"
        ) from error


def _stored(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a file one by one: ranks of a node would each hold it whole otherwise."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            yield name, file.get_tensor(name)


def _held(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.isdigit())
