"""One training in several processes: who they are, how a model lies over them, and how they end together.

torchrun or Ray Train starts them and each calls ``train``. Ranks split a batch and nothing else, so an update
is the same whatever their number, up to the order of sums. DDP gives every rank all weights and adds up their
gradients; FSDP2 (``fully_shard``) divides weights, gradients, moments and averages, and puts a block together
while it is at work: slower, and for models that do not fit otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from uuid import uuid4

from pipeline.config import Device
from pipeline.errors import ConfigError, WorkerError
from pipeline.train.settings import ParallelKind, Training

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")

BACKENDS: Mapping[Device, str] = {"cuda": "cpu:gloo,cuda:nccl", "cpu": "gloo"}
"""What tensors travel by; figures and errors are on the host, and go by gloo."""

PATIENCE = timedelta(hours=1)
"""How long ranks wait for each other: the first alone writes a checkpoint of a large model."""

ROOM = 0.7
"""Part of a GPU's memory that a whole model and all that training adds may take; the rest is activations'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process, ``rank`` of ``count``. Methods are called by all ranks, or the others wait for ever."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def gathered(self, value: T) -> list[T]:
        """Return what each rank gave, in their order."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        found = [value] * self.count
        dist.all_gather_object(found, value)
        return found


ALONE = Ranks()


@contextmanager
def joined(device: Device) -> Iterator[Ranks]:
    """Join the processes that torchrun or Ray Train started beside this one; leave when all are done.

    An error is not waited with: whoever has one leaves at once, which ends the others. Raises ConfigError,
    and WorkerError in a process that lost another.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    import torch.distributed as dist

    ours = not dist.is_initialized()  # Ray Train has joined them already
    if ours:
        _join(device)
    ranks = Ranks(rank=dist.get_rank(), count=dist.get_world_size())
    try:
        yield ranks
        dist.barrier()
    except RuntimeError as error:
        if not _of_others(error):
            raise
        raise WorkerError(
            f"process {ranks.rank} of {ranks.count} lost another, which says why: mend that, then the same "
            "command goes on from the last checkpoint"
        ) from error
    if ours:
        dist.destroy_process_group()


def settle(training: Training, folder: Path, ranks: Ranks) -> None:
    """Make ``folder``, and refuse what these ranks cannot do before any of them loads a model."""
    refuse_split(training, ranks.count)
    probe = folder / f".tmp-{ranks.gathered(uuid4().hex)[0]}"
    if ranks.first:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
    ranks.gathered(None)
    seen = ranks.gathered(probe.exists())
    if ranks.first:
        probe.unlink()
    if not all(seen):
        raise ConfigError(
            f"output.folder: {folder} is another folder to process {seen.index(False)} than to process 0: "
            "mount shared storage there on every node"
        )


def refuse_split(training: Training, count: int) -> None:
    """Refuse a batch that ``count`` processes cannot have equal parts of. Raises ConfigError."""
    optim = training.optim
    if optim.batch % (count * optim.micro_batch):
        raise ConfigError(
            f"optim.batch = {optim.batch} cannot be split over {count} processes of micro_batch = "
            f"{optim.micro_batch}: lower optim.micro_batch (it changes no update), or the number of processes"
        )


def _join(device: Device) -> None:
    import torch
    import torch.distributed as dist

    place = None
    if device == "cuda":
        local, here = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= here:
            raise ConfigError(f"process {local} of this machine has no GPU: use --nproc-per-node {here}")
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    try:
        dist.init_process_group(BACKENDS[device], timeout=PATIENCE, device_id=place)
    except ValueError as error:
        raise ConfigError(
            f"WORLD_SIZE is above 1, but {error}: start it by torchrun, or unset WORLD_SIZE"
        ) from error


def _of_others(error: RuntimeError) -> bool:
    """Tell whether it says that another process is gone; gloo has no class of its own for that."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a model lies over ranks, and ``why`` in one line."""

    kind: Literal["alone", "ddp", "fsdp"]
    why: str


def choose(wanted: ParallelKind, ranks: Ranks, *, needed: int, memory: int | None) -> Layout:
    """Choose a layout. Bytes: ``needed`` by a whole model and all that training adds, ``memory`` of a GPU."""
    if ranks.count == 1:
        return Layout(kind="alone", why="1 process")
    many = f"{ranks.count} processes"
    if wanted != "auto":
        return Layout(kind=wanted, why=f"{many}, {wanted}: parallel.kind says so")
    if memory is None:
        return Layout(kind="ddp", why=f"{many}, ddp: there is no GPU whose memory could be short")
    kind: Literal["ddp", "fsdp"] = "ddp" if needed <= ROOM * memory else "fsdp"
    return Layout(
        kind=kind,
        why=f"{many}, {kind}: {needed / 2**30:.1f} GiB of weights, gradients, moments and copies "
        f"{'fit' if kind == 'ddp' else 'do not fit'} {ROOM:.0%} of a GPU's {memory / 2**30:.0f} GiB",
    )


def replicated(model: nn.Module, *, idle: bool) -> nn.Module:
    """Return what is called in the place of ``model`` and adds gradients up as backward makes them.

    ``idle``: some parameters get none, which DDP must look for.
    """
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(
        model, forward_sync_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=idle
    )


def shard(model: nn.Module, ranks: Ranks, device: torch.device, *, half: bool) -> None:
    """Divide a model on the host over all ranks, block by block, each onto ``device``.

    ``half`` gathers float32 weights as bf16, as autocast would cast them; gradients add up in float32.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (ranks.count,))
    policy = MixedPrecisionPolicy()
    if half:
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    blocks = set(model._no_split_modules or ())  # type: ignore[arg-type]
    for module in reversed(list(model.modules())):  # children first: a parent takes what they leave
        if module is model or type(module).__name__ in blocks:
            # The root too: kept whole after a forward pass alone, it would not see weights that are loaded.
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def whole(value: Tensor) -> Tensor:
    """Return a tensor in one piece, whether it is divided or not; all ranks call it."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


def on_host(values: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Return whole tensors on the first rank's host, none on others'. A GPU holds one of them at a time."""
    found = {}
    for name, value in values.items():
        made = whole(value.detach())
        if ranks.first:
            found[name] = made.cpu().contiguous()
    return found


def placed(value: Tensor, held: Tensor) -> Tensor:
    """Return a whole tensor as ``held`` lies: on its device, and this rank's part of it if it is divided."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(held, DTensor):
        return value.to(held.device)
    there = value.to(held.device)
    return distribute_tensor(there, held.device_mesh, held.placements, src_data_rank=None)
