"""Errors of the reference model, made once and kept: two numbers a visit of a pair.

Timestep and noise of a visit are keyed (see ``noise``), so the reference model errs alike in every training:
another alpha, kappa, learning rate or rank reads what one has made, and trains without a second model in
memory and without its forward passes, a quarter of a full training's work. Errors are made before the first
update and before a checkpoint is loaded, when the policy still is the reference model, in the forward passes
that the training will make, or the last bits would differ and the gate would refuse to start.

What lies under ``<data.cache>/reference/<fingerprint>/`` are segments, Parquet files named by the visits that
they hold. All are read; what is not in one that can be read is made again. Ranks write their own.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import CorruptError
from pipeline.ids import content_id
from pipeline.storage import Store, open_store
from pipeline.train.measure import held_out_batches
from pipeline.train.models import identity
from pipeline.train.parallel import Layout
from pipeline.train.settings import Model, Training

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline.train.data import Batch, Item
    from pipeline.train.loop import Run

SEGMENT = 1024
"""Visits of a segment, about: what a kill loses."""

BYTES = 16
"""Of a visit's key; among a billion visits two meet by chance with a probability of 1e-21."""

SCHEMA = pa.schema([("visit", pa.binary(BYTES)), ("winner", pa.float64()), ("loser", pa.float64())])
THREADS = 16

Keys = NDArray[np.bytes_]
Errors = NDArray[np.float64]


class Reference:
    """Errors by visit, of one training: 32 bytes each. Raises StorageError."""

    def __init__(self, run: Run) -> None:
        self._run = run
        training = run.training
        self._store: Store = open_store(training.data.cache or "")
        devices = sorted(set(run.ranks.gathered(_arithmetic(run.policy.device))))
        name = fingerprint(training, run.policy.layout, devices, len(run.source.catalogue))
        self._prefix = f"reference/{name}/"
        self._made = [*_read(self._store, self._prefix)]
        self._sort()

    @property
    def remedy(self) -> str:
        """What to do where these errors are not the policy's."""
        return f"delete the errors kept in {self._store.uri}/{self._prefix}, they are made again"

    def errors(self, items: Sequence[Item]) -> Tensor:
        """Return [2n] float64 errors, winners' first."""
        import torch

        places, known = self._find(_visits_of(items))
        if not known.all():
            raise CorruptError(f"cached reference errors lack a visit of this training: {self.remedy}")
        return torch.from_numpy(self._errors[places].T.ravel())

    def complete(self, until: int, progress: Callable[[Mapping[str, Any]], None]) -> None:
        """Make what is missing of ``until`` updates and of held-out pairs; ``progress`` hears of it."""
        run, optim = self._run, self._run.training.optim
        # Of whole batches, whichever rank's: sharded ranks must make the same forward passes.
        missing = [step for step in range(until) if not self._has(self._visits(step))]
        held_out = _keys(
            (run.source.catalogue.pair_id(row), -1 - visit)
            for row in run.source.held_out.tolist()
            for visit in range(run.training.data.visits)
        )
        lacking = held_out_batches(run) if not self._has(held_out) else ()
        total = len(missing) * optim.batch // run.ranks.count + len(held_out)
        done = 0
        for keys, errors in self._segments(chain(_of_steps(run, missing), lacking)):
            done += len(keys)
            progress({"reference": done, "of": total})
            self._made.append((keys, errors))
        self._sort()

    def _segments(self, batches: Iterable[Batch]) -> Iterator[tuple[Keys, Errors]]:
        """Make, keep and yield the errors of ``batches``."""
        made = ((_visits_of(batch.items), self._errors_of(batch)) for batch in batches)
        while first := next(made, None):
            segment, visits = [first], len(first[0])
            while visits < SEGMENT and (more := next(made, None)):
                segment.append(more)
                visits += len(more[0])
            keys, errors = (np.concatenate(parts) for parts in zip(*segment, strict=True))
            self._put(keys, errors)
            yield keys, errors

    def _errors_of(self, batch: Batch) -> Errors:
        parts = [self._run.reference_errors(items, batch).chunk(2) for items in self._run.parts(batch)]
        made = [np.stack([side.double().cpu().numpy() for side in sides], axis=1) for sides in parts]
        return np.concatenate(made)

    def _put(self, keys: Keys, errors: Errors) -> None:
        visits = pa.Array.from_buffers(SCHEMA.types[0], len(keys), [None, pa.py_buffer(keys.tobytes())])
        columns = [visits, *(pa.array(np.ascontiguousarray(side)) for side in errors.T)]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), sink, write_page_checksum=True)
        name = hashlib.sha256(keys.tobytes()).hexdigest()[:32]
        # In place of one of the same name that could not be read.
        self._store.replace(f"{self._prefix}{name}.parquet", sink.getvalue().to_pybytes())

    def _visits(self, step: int) -> Keys:
        drawn, catalogue = self._run.source.order[step], self._run.source.catalogue
        return _keys(
            (catalogue.pair_id(row), draw)
            for row, draw in zip(drawn.rows.tolist(), drawn.draws.tolist(), strict=True)
        )

    def _has(self, keys: Keys) -> bool:
        return bool(self._find(keys)[1].all())

    def _find(self, keys: Keys) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return the places of ``keys``, and which of them are right."""
        if not len(self._keys):
            return np.zeros(len(keys), np.intp), np.zeros(len(keys), bool)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return places, self._keys[places] == keys

    def _sort(self) -> None:
        keys, errors = zip(*self._made, strict=True) if self._made else ([_keys(())], [np.empty((0, 2))])
        self._keys, first = np.unique(np.concatenate(keys), return_index=True)
        self._errors = np.concatenate(errors)[first]
        self._made = [(self._keys, self._errors)]


def fingerprint(training: Training, layout: Layout, devices: Sequence[str], pairs: int) -> str:
    """Return the name of all that reference errors depend on, to the last bit.

    That is weights by their content, how and on which ``devices`` they are called; which visits there are,
    and which share a forward pass, which the number of ranks does not change. It is not the objective
    (weighting comes after), the optimiser, or the rank of adapters, which are off in the reference model.
    """
    model, optim = training.model, training.optim
    data = dataclasses.asdict(training.data)
    for name in ("threads", "verify", "cache", "visits"):
        del data[name]
    return content_id(
        "reference errors",
        weights=_weights(model),
        model=[model.family, model.train, model.precision, model.guidance, model.compile and model.rank],
        times=dataclasses.asdict(training.times),
        data=data,
        pairs=pairs,
        seed=training.seed,
        batch=[optim.batch, optim.micro_batch, layout.kind == "fsdp"],
        devices=list(devices),
    )


def _arithmetic(device: torch.device) -> str:
    """Return what decides how sums are rounded: torch's release, the GPU or the number of threads."""
    import torch

    if device.type == "cuda":
        return f"torch {torch.__version__}, {torch.cuda.get_device_name(device)}"
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads"


def _weights(settings: Model) -> str:
    """Return what names weights: a repository and its commit, or what is in a folder, which may change."""
    folder = Path(settings.weights)
    if not folder.is_dir():
        return identity(settings)
    paths = sorted(path for kind in ("*.safetensors", "*.json") for path in folder.rglob(kind))
    with ThreadPoolExecutor(THREADS) as pool:
        digests = list(pool.map(_sha256, paths))
    names = [str(path.relative_to(folder)) for path in paths]
    return content_id("weights", files=dict(zip(names, digests, strict=True)))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_steps(run: Run, steps: Sequence[int]) -> Iterator[Batch]:
    """Yield the batches of ascending ``steps``; the loader reads ahead where they follow each other."""
    begin = 0
    for place, step in enumerate(steps, start=1):
        if place == len(steps) or steps[place] != step + 1:
            yield from islice(run.batches(steps[begin]), place - begin)
            begin = place


def _visits_of(items: Sequence[Item]) -> Keys:
    return _keys((item.sample.pair_id, item.draw) for item in items)


def _keys(visits: Iterable[tuple[str, int]]) -> Keys:
    made = [hashlib.blake2b(f"{pair} {draw}".encode(), digest_size=BYTES).digest() for pair, draw in visits]
    return np.frombuffer(b"".join(made), f"S{BYTES}")


def _read(store: Store, prefix: str) -> Iterator[tuple[Keys, Errors]]:
    """Yield what the segments under ``prefix`` hold; one that is damaged is as good as missing."""
    names = [entry.key for entry in store.list(prefix) if entry.key.endswith(".parquet")]
    with ThreadPoolExecutor(THREADS) as pool:
        for table in pool.map(lambda name: _segment(store.get(name)), names):
            if table is not None:
                keys = np.frombuffer(b"".join(table["visit"].to_pylist()), f"S{BYTES}")
                yield keys, np.stack([table["winner"].to_numpy(), table["loser"].to_numpy()], axis=1)


def _segment(data: bytes) -> pa.Table | None:
    try:
        table = pq.read_table(pa.BufferReader(data), schema=SCHEMA, page_checksum_verification=True)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None
    return table
