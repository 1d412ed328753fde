"""The loop: from settings to a trained, exported model. SFT and DPO differ in what is minimised alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.train import checkpoints
from pipeline.train.data import Batch, Item, Source, source
from pipeline.train.flops import of_forward, peak
from pipeline.train.loss import (
    kappa_eff,
    margin,
    poly_dpo,
    residual,
    safeguarded,
    sample_errors,
)
from pipeline.train.measure import held_out, write_held_out
from pipeline.train.meters import Log, Meters
from pipeline.train.models import Encoder, Policy
from pipeline.train.noise import chance
from pipeline.train.optimizers import adamw, set_lr
from pipeline.train.parallel import ALONE, Ranks, joined, on_host, settle, whole
from pipeline.train.reference import Reference
from pipeline.train.samples import Samples
from pipeline.train.settings import Training, to_json
from pipeline.train.trackers import Trackers

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.train.families import Condition

Progress = Callable[[Mapping[str, Any]], None]

GRADIENT_AND_MOMENTS = {"adamw": 3 * 4, "adamw8bit": 4 + 2}
AVERAGE = 4
"""Bytes of a number that is trained, beside itself."""


def train(
    training: Training,
    *,
    until: int | None = None,
    export: bool = True,
    progress: Progress = lambda _: None,
) -> Path:
    """Train to the end, or go on with what was begun, and return the folder of the exported model.

    The folder gets log.jsonl, training.json, checkpoints/, export/ and, if they are asked for, held_out.json
    and samples/.

    ``until``: stop after so many updates in all, with a checkpoint, without exporting. ``progress`` gets each
    line of the log, before them how many reference errors were made. Raises ConfigError, CorruptError,
    MediaError, StorageError.
    """
    folder = Path(training.output.folder)
    with joined(training.device) as ranks:
        settle(training, folder, ranks)
        trackers = Trackers(training.output.trackers if ranks.first else (), folder, asdict(training))
        end = training.optim.steps if until is None else min(until, training.optim.steps)
        run = Run(training, ranks=ranks, until=end, progress=progress if ranks.first else lambda _: None)
        step = run.resume()
        log = None
        if ranks.first:
            log = Log(folder, step=step)
            (folder / "training.json").write_text(to_json(training), encoding="utf-8")
            if ranks.count > 1:
                progress({"parallel": run.policy.layout.why})
        for line in _watched(run, step, run.steps(step, end), trackers):
            if log is not None:
                log.write(line)
                progress(line)
        if end < training.optim.steps:
            return folder / "checkpoints"
        run.adopt_averages()
        if export:
            run.export(folder / "export")
        if training.objective.kind == "dpo" and (found := held_out(run)) and ranks.first:
            write_held_out(training, found)
    return folder / "export"


def _watched(
    run: Run, step: int, lines: Iterator[dict[str, Any]], trackers: Trackers
) -> Iterator[dict[str, Any]]:
    """Pass on the lines of a log from ``step`` on, show them in trackers, and draw samples in between."""
    every = run.training.samples.every
    samples = Samples(run) if every else None
    if samples and not step:
        trackers.picture(0, samples.draw(0))
    for line in lines:
        yield line
        trackers.line(line)
        if samples and line["step"] % every == 0:
            trackers.picture(line["step"], samples.draw(line["step"]))
    trackers.close()


class Run:
    """A training in memory: policy, reference, data, optimiser.

    Cached reference errors are made for the first ``until`` updates (None: all); ``progress`` hears of it.
    """

    def __init__(
        self,
        training: Training,
        *,
        ranks: Ranks = ALONE,
        until: int | None = None,
        progress: Progress = lambda _: None,
    ) -> None:
        self.training, self.ranks = training, ranks
        optim = training.optim
        self.source: Source = source(training.data, batch=optim.batch, seed=training.seed)
        self.policy = Policy(
            training.model,
            device=training.device,
            seed=training.seed,
            ranks=ranks,
            kind=training.parallel.kind,
            more=GRADIENT_AND_MOMENTS[optim.kind] + (AVERAGE if optim.ema else 0),
        )
        self.encoder = Encoder(self.policy, cache=training.data.cache)
        self.trained = self.policy.trained()
        self.averaged = {name: value.detach().clone() for name, value in self.trained.items() if optim.ema}
        self.optimizer = adamw(optim, self.trained)
        self.flops = 0.0
        """Of the last forward and backward pass."""
        self.reference: Reference | None = None
        if training.objective.kind == "dpo" and training.model.reference == "cached":
            self.reference = Reference(self)
            ranks.gathered(None)  # all have seen what is kept before one adds to it
            self.reference.complete(optim.steps if until is None else until, progress)

    def resume(self) -> int:
        """Load the last checkpoint, if there is one; return how many updates are done."""
        return checkpoints.resume(self.training, self.trained, self.optimizer, self.averaged, self.ranks)

    def batches(self, step: int) -> Iterator[Batch]:
        """Yield what this process gets of the updates from ``step`` on, without end."""
        return self.source.batches(
            step,
            threads=self.training.data.threads,
            rank=self.ranks.rank,
            ranks=self.ranks.count,
            decode=self.encoder.decode,
        )

    def parts(self, batch: Batch) -> Iterator[Sequence[Item]]:
        """Yield the pairs of each forward pass."""
        most = self.training.optim.micro_batch
        for start in range(0, len(batch.items), most):
            yield batch.items[start : start + most]

    def steps(self, step: int, end: int) -> Iterator[dict[str, Any]]:
        """Do the updates from ``step`` to ``end``; yield a line for the log each interval."""
        output = self.training.output
        batches, best = self.batches(step), peak(self.policy.device, self.training.model.precision)
        meters = Meters(peak=best)
        try:
            while step < end:
                begun = time.monotonic()
                batch = next(batches)
                meters.waited += time.monotonic() - begun
                self._update(batch, meters)
                step += 1
                if step % output.log == 0 or step == self.training.optim.steps:
                    meters.merge(self.ranks.gathered(meters))
                    yield {"step": step, "lr": self._lr(step - 1), **self._constants(), **meters.read()}
                    meters = Meters(peak=best)
                if step % output.checkpoint == 0 or step == end:
                    checkpoints.save(
                        self.training, step, self.trained, self.optimizer, self.averaged, self.ranks
                    )
        finally:
            batches.close()  # type: ignore[attr-defined]

    def adopt_averages(self) -> None:
        """Put averaged weights, if there are any, in place of the last ones, to measure and export them."""
        import torch

        with torch.no_grad():
            for name, mean in self.averaged.items():
                self.trained[name].copy_(mean)

    def export(self, folder: Path) -> Path:
        """Write what diffusers loads: a whole pipeline (full), or adapters for ``load_lora_weights``."""
        if self.training.model.train == "full":
            with self.policy.whole() as pipe:
                if pipe is not None:
                    pipe.save_pretrained(folder, safe_serialization=True)
            return folder
        from peft import get_peft_model_state_dict

        layers = on_host(get_peft_model_state_dict(self.policy.model), self.ranks)
        if self.ranks.first:
            named = {f"{self.policy.family.denoiser}_lora_layers": layers}
            self.policy.pipe.save_lora_weights(folder, **named, safe_serialization=True)
        return folder

    def _update(self, batch: Batch, meters: Meters) -> None:
        import torch

        optim = self.training.optim
        set_lr(self.optimizer, self._lr(batch.step))
        self.optimizer.zero_grad(set_to_none=True)
        parts, found = list(self.parts(batch)), []
        for number, items in enumerate(parts, start=1):
            with self.policy.adding_up(last=number == len(parts)):
                losses, seen = self.losses(items, batch)
                if batch.step == 0 and "z" in seen:
                    self._gate(seen["z"])
                # DDP and FSDP2 take the mean over ranks, of which each has its part of the batch's sum.
                torch.autograd.backward(losses.sum() * self.ranks.count / optim.batch)
            found.append({name: value.detach() for name, value in {"loss": losses, **seen}.items()})
            meters.flops += self.flops
        norm = torch.nn.utils.clip_grad_norm_(list(self.trained.values()), optim.clip or float("inf"))
        self.optimizer.step()
        # Here alone a GPU is waited for: inputs of a forward pass are made while it is at the one before.
        meters.norms.append(float(whole(norm)))
        for each in found:
            meters.add(**each)
        if self.averaged:
            means, values = (
                list(self.averaged.values()),
                [self.trained[name].detach() for name in self.averaged],
            )
            torch._foreach_lerp_(means, values, 1 - optim.ema)

    def _lr(self, step: int) -> float:
        """Return the learning rate of an update: constant after a linear warm-up."""
        optim = self.training.optim
        return optim.lr * min(1.0, (step + 1) / (optim.warmup + 1))

    def losses(self, items: Sequence[Item], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss [n] of pairs and what the log wants to know of each."""
        goal = self.training.objective
        noisy, target, time, given, t = self._inputs(items, batch)
        self.flops = of_forward(self.training, self.policy.model, noisy, time, given)
        if self.reference is not None:
            refs = self.reference.errors(items)
        elif goal.kind == "dpo":  # first, as compiled it holds for a moment what backward would need
            refs = sample_errors(self.policy.predict_reference(noisy, time, given), target)
        made = self.policy.predict(noisy, time, given)
        errors = self._weighted(sample_errors(made, target), t)
        if goal.kind == "sft":
            return errors, {"t": t, "winner": errors}
        winner, loser = errors.chunk(2)
        ref_winner, ref_loser = self._weighted(refs.to(errors), t).chunk(2)
        bounded = loser
        if goal.safeguard:
            of_winner, of_loser = residual(made, target).chunk(2)
            bounded = safeguarded(loser, of_winner, of_loser, goal.safeguard)
        z = margin(goal.kappa or 0.0, winner, bounded, ref_winner, ref_loser)
        losses = poly_dpo(z, goal.alphas) + goal.sft * winner
        if goal.confidence:
            sure = _like([item.sample.confidence for item in items], z)
            losses = losses * sure**goal.confidence
        changes = {"winner_change": winner - ref_winner, "loser_change": loser - ref_loser}
        return losses, {"t": t.chunk(2)[0], "z": z, "winner": winner, **changes}

    def reference_errors(self, items: Sequence[Item], batch: Batch) -> Tensor:
        """Return [2n] errors of the reference model, winners' first, before any weighting."""
        noisy, target, time, given, _ = self._inputs(items, batch)
        return sample_errors(self.policy.predict_reference(noisy, time, given), target)

    def _weighted(self, errors: Tensor, t: Tensor) -> Tensor:
        if self.training.objective.weighting == "1-t":
            errors = errors * (1 - t).square().to(errors.dtype)
        return errors

    def _inputs(
        self, items: Sequence[Item], batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor, Condition, Tensor]:
        """Return noisy latents, targets, timesteps, condition and t of one forward pass.

        DPO: winners, then losers, each pair at one timestep and with one noise. SFT: winners alone.
        """
        import torch

        training, process = self.training, self.policy.process
        luck = [chance(training.seed, item.sample.pair_id, item.draw) for item in items]
        dropped = training.data.caption_dropout
        prompts = [
            "" if one.caption < dropped else item.sample.prompt for one, item in zip(luck, items, strict=True)
        ]
        latents = torch.stack([self.encoder.latents(item, batch.size) for item in items])
        drawn = torch.stack([torch.from_numpy(one.noise(latents.shape[2:])) for one in luck])
        times = torch.tensor([training.times.at(one.time) for one in luck], dtype=torch.float64)
        noise, t = (value.to(latents.device, non_blocking=True) for value in (drawn, times))
        given = self.encoder.condition(prompts)
        data = latents[:, 0]
        if training.objective.kind == "dpo":
            data = torch.cat([latents[:, 0], latents[:, 1]])
            noise, t = torch.cat([noise, noise]), torch.cat([t, t])
            given = {name: torch.cat([value, value]) for name, value in given.items()}
        return process.noisy(data, noise, t), process.target(data, noise, t), process.timestep(t), given, t

    def _gate(self, z: Tensor) -> None:
        """Refuse to start unless z is 0 to the bit: else policy and reference do not compute the same."""
        worst = max(self.ranks.gathered(z.detach().abs().nan_to_num(nan=float("inf")).max().item()))
        if worst != 0:
            raise ConfigError(
                f"z at step 0 is up to {worst:.3g} and must be 0 to the bit: policy and reference differ "
                "before any update (other weights, precision, kernels, a random layer): "
                + ("see model.reference" if self.reference is None else self.reference.remedy)
            )

    def _constants(self) -> dict[str, float | str]:
        goal = self.training.objective
        about: dict[str, float | str] = {} if self.ranks.count == 1 else {"parallel": self.policy.layout.why}
        if goal.kappa is not None:
            about |= {"kappa": goal.kappa, "kappa_eff": kappa_eff(goal.kappa, goal.alphas)}
        return about


def _like(values: Sequence[float], other: Tensor) -> Tensor:
    """Return ``values`` as a tensor of the type and place of ``other``."""
    import torch

    return torch.tensor(values, dtype=other.dtype, device=other.device)
