"""The loop: from settings to a trained, exported model. SFT and DPO differ in what is minimised alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.train import checkpoints
from pipeline.train.data import Batch, Item, Source, source
from pipeline.train.loss import (
    kappa_eff,
    margin,
    poly_dpo,
    residual,
    safeguarded,
    sample_errors,
)
from pipeline.train.measure import held_out
from pipeline.train.meters import Log, Meters
from pipeline.train.models import Encoder, Policy
from pipeline.train.noise import chance
from pipeline.train.settings import Training, to_json

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.train.families import Condition

Progress = Callable[[Mapping[str, Any]], None]


def train(training: Training, *, until: int | None = None, progress: Progress = lambda _: None) -> Path:
    """Train to the end, or go on with what was begun, and return the folder of the exported model.

    The folder gets log.jsonl, training.json, checkpoints/, export/ and, if pairs are held out, held_out.json.

    ``until``: stop after so many updates in all, with a checkpoint, without exporting. ``progress`` gets each
    line of the log. Raises ConfigError, CorruptError, MediaError, StorageError.
    """
    folder = Path(training.output.folder)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(training)
    step = run.resume()
    log = Log(folder, step=step)
    (folder / "training.json").write_text(to_json(training), encoding="utf-8")
    end = training.optim.steps if until is None else min(until, training.optim.steps)
    for line in run.steps(step, end):
        log.write(line)
        progress(line)
    if end < training.optim.steps:
        return folder / "checkpoints"
    exported = run.export(folder / "export")
    if training.objective.kind == "dpo" and (found := held_out(run)):
        (folder / "held_out.json").write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
    return exported


class Run:
    """A training in memory: policy, reference, data, optimiser."""

    def __init__(self, training: Training) -> None:
        import torch

        self.training = training
        optim = training.optim
        self.source: Source = source(training.data, batch=optim.batch, seed=training.seed)
        self.policy = Policy(training.model, device=training.device, seed=training.seed)
        self.encoder = Encoder(self.policy, cache=training.data.cache)
        self.trained = self.policy.trained()
        self.averaged = {name: value.detach().clone() for name, value in self.trained.items() if optim.ema}
        self.optimizer = torch.optim.AdamW(
            list(self.trained.values()),
            lr=optim.lr,
            betas=(optim.beta1, optim.beta2),
            eps=optim.epsilon,
            weight_decay=optim.weight_decay,
            fused=True,
        )

    def resume(self) -> int:
        """Load the last checkpoint, if there is one; return how many updates are done."""
        return checkpoints.resume(self.training, self.trained, self.optimizer, self.averaged)

    def steps(self, step: int, end: int) -> Iterator[dict[str, Any]]:
        """Do the updates from ``step`` to ``end``; yield a line for the log each interval."""
        data, output = self.training.data, self.training.output
        batches = self.source.batches(step, threads=data.threads, decode=self.encoder.decode)
        meters = Meters()
        try:
            while step < end:
                begun = time.monotonic()
                batch = next(batches)
                meters.waited += time.monotonic() - begun
                self._update(batch, meters)
                step += 1
                if step % output.log == 0 or step == self.training.optim.steps:
                    yield {"step": step, "lr": self._lr(step - 1), **self._constants(), **meters.read()}
                    meters = Meters()
                if step % output.checkpoint == 0 or step == end:
                    checkpoints.save(self.training, step, self.trained, self.optimizer, self.averaged)
        finally:
            batches.close()  # type: ignore[attr-defined]

    def export(self, folder: Path) -> Path:
        """Write what diffusers loads: a whole pipeline (full), or adapters for ``load_lora_weights``."""
        import torch

        with torch.no_grad():
            for name, mean in self.averaged.items():
                self.trained[name].copy_(mean)
        pipe, name = self.policy.pipe, self.policy.family.denoiser
        if self.training.model.train == "full":
            pipe.save_pretrained(folder, safe_serialization=True)
        else:
            from peft import get_peft_model_state_dict

            layers = get_peft_model_state_dict(self.policy.model)
            pipe.save_lora_weights(folder, **{f"{name}_lora_layers": layers}, safe_serialization=True)
        return folder

    def _update(self, batch: Batch, meters: Meters) -> None:
        import torch

        optim = self.training.optim
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr(batch.step)
        self.optimizer.zero_grad(set_to_none=True)
        for start in range(0, len(batch.items), optim.micro_batch):
            items = batch.items[start : start + optim.micro_batch]
            losses, seen = self.losses(items, batch)
            if batch.step == 0 and "z" in seen:
                self._gate(seen["z"])
            torch.autograd.backward(losses.sum() / optim.batch)
            meters.add(loss=losses, **seen)
        norm = torch.nn.utils.clip_grad_norm_(list(self.trained.values()), optim.clip or float("inf"))
        meters.norms.append(float(norm))
        self.optimizer.step()
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
        made = self.policy.predict(noisy, time, given)
        errors = self._errors(made, target, t)
        if goal.kind == "sft":
            return errors, {"t": t, "winner": errors}
        winner, loser = errors.chunk(2)
        refs = self._errors(self.policy.predict_reference(noisy, time, given), target, t)
        ref_winner, ref_loser = refs.chunk(2)
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

    def _errors(self, made: Tensor, target: Tensor, t: Tensor) -> Tensor:
        errors = sample_errors(made, target)
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
        noise = torch.stack([torch.from_numpy(one.noise(latents.shape[2:])) for one in luck]).to(
            latents.device
        )
        t = torch.tensor(
            [training.times.at(one.time) for one in luck], dtype=torch.float64, device=latents.device
        )
        given = self.encoder.condition(prompts)
        data = latents[:, 0]
        if training.objective.kind == "dpo":
            data = torch.cat([latents[:, 0], latents[:, 1]])
            noise, t = torch.cat([noise, noise]), torch.cat([t, t])
            given = {name: torch.cat([value, value]) for name, value in given.items()}
        return process.noisy(data, noise, t), process.target(data, noise, t), process.timestep(t), given, t

    def _gate(self, z: Tensor) -> None:
        """Refuse to start unless z is 0 to the bit: else policy and reference do not compute the same."""
        worst = z.detach().abs().max().item()
        if worst != 0:
            raise ConfigError(
                f"z at step 0 is up to {worst:.3g} and must be 0 to the bit: policy and reference differ "
                "before any update (other weights, precision, kernels, a random layer): see model.reference"
            )

    def _constants(self) -> dict[str, float]:
        goal = self.training.objective
        return (
            {}
            if goal.kappa is None
            else {"kappa": goal.kappa, "kappa_eff": kappa_eff(goal.kappa, goal.alphas)}
        )


def _like(values: Sequence[float], other: Tensor) -> Tensor:
    """Return ``values`` as a tensor of the type and place of ``other``."""
    import torch

    return torch.tensor(values, dtype=other.dtype, device=other.device)
