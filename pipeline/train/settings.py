"""What a training is made from: a TOML file to frozen dataclasses, refused before any work if it is wrong."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.config import Device, load_toml
from pipeline.errors import ConfigError
from pipeline.ids import content_id
from pipeline.records import LicenceProfile
from pipeline.train.loss import check_alphas, conversions
from pipeline.train.noise import Times
from pipeline.train.shards import Share

FamilyName = Literal["sd15", "sdxl", "sd3", "flux", "qwen_image", "wan"]
ParallelKind = Literal["auto", "ddp", "fsdp"]
TrackerName = Literal["tensorboard", "wandb", "trackio"]
FLOW: tuple[FamilyName, ...] = ("sd3", "flux", "qwen_image", "wan")
"""Families of rectified flow; the others predict noise or velocity, as their scheduler says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What is trained. ``weights``: folder of a diffusers pipeline, or the hub's repository at ``revision``
    (None: as infra/weights.toml pins it).

    lora trains adapters of ``rank`` on weights in the type of ``precision``; full trains float32 masters, and
    bf16 is then the type of the arithmetic alone: steps of 1e-6 would be rounded away in bf16 weights.
    ``reference``: adapters switched off (lora), a frozen copy of the weights, or "cached": its errors are
    made before the first update, kept under data.cache and used by every training they are the same for.
    ``compile`` makes one program of each repeated block (torch.compile); its first updates take minutes.
    ``guidance`` is what a guidance-distilled transformer (FLUX.1-dev) is told.
    """

    family: FamilyName
    weights: str
    revision: str | None = None
    train: Literal["full", "lora"] = "lora"
    rank: int = 16
    precision: Literal["fp32", "bf16"] = "bf16"
    reference: Literal["adapters", "frozen", "cached"] = "adapters"
    checkpointing: bool = False
    compile: bool = False
    guidance: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Pixels and frames that pairs are brought to: scaled until they cover it, then cropped to the middle."""

    width: int
    height: int
    frames: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What is trained on. ``runs``: folders or s3:// prefixes of finished builds and imports.

    Of several ``sizes`` a pair takes the one nearest to its own shape; that and ``held_out`` (the share of
    prompts kept for measuring, each pair at ``visits`` timesteps) read every pair's JSON at the start.
    ``caption_dropout``: the share of visits without a prompt. ``verify`` compares every SHA-256. ``cache``:
    folder or prefix in which latents, text embeddings and cached reference errors are kept (None: made each
    time).
    """

    runs: tuple[str, ...]
    sizes: tuple[Resolution, ...]
    categories: tuple[Share, ...] = ()
    licence: LicenceProfile = "permissive"
    held_out: float = 0.0
    visits: int = 8
    caption_dropout: float = 0.0
    threads: int = 4
    verify: bool = False
    cache: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is minimised; see ``loss``. sft: the winner's error alone. dpo needs ``kappa``.

    ``alpha`` is Poly-DPO's coefficient (0: Diffusion-DPO) and ``higher`` those of the orders from 2.
    A pair's loss is multiplied by its confidence to the power of ``confidence``; ``safeguard`` above 0 bounds
    the loser's gradient (1: the winner's error must not rise, to first order); ``sft`` adds so much of the
    winner's error. ``weighting`` 1-t makes errors of flow models those of the noise they imply: x (1-t)^2.
    ``beta`` exists to be refused: no two trainers mean the same by it.
    """

    kind: Literal["sft", "dpo"]
    kappa: float | None = None
    alpha: float = 0.0
    higher: tuple[float, ...] = ()
    confidence: float = 0.0
    safeguard: float = 0.0
    sft: float = 0.0
    weighting: Literal["none", "1-t"] = "none"
    beta: float | None = None

    @property
    def alphas(self) -> tuple[float, ...]:
        """Coefficients of sigmoid(-z), its square and so on."""
        return (self.alpha, *self.higher)


@dataclass(frozen=True, slots=True, kw_only=True)
class Optim:
    """How it is minimised: AdamW, with moments of 32 or (adamw8bit) of 8 bits. ``batch``: pairs of an update.

    ``micro_batch``: pairs of one forward pass. ``clip``: largest norm of the gradient (0: no limit). ``ema``:
    decay of the averaged weights that are exported (0: none).
    """

    lr: float
    batch: int
    steps: int
    kind: Literal["adamw", "adamw8bit"] = "adamw"
    micro_batch: int = 1
    warmup: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """How several processes share a model; one process needs none of it.

    ddp: each holds it whole; fsdp: each holds a part; auto: ddp if a GPU has room for all that it takes.
    """

    kind: ParallelKind = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where results go: ``folder`` gets log.jsonl, checkpoints/ and export/. Numbers count updates.

    A checkpoint is written every ``checkpoint`` updates and the last ``keep`` are kept. ``trackers`` show the
    log and samples; wandb and trackio take where and who from their own environment variables.
    """

    folder: str
    log: int = 10
    checkpoint: int = 500
    keep: int = 2
    trackers: tuple[TrackerName, ...] = ("tensorboard",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Pictures of ``prompts`` in the first of data.sizes, every ``every`` updates (0: none).

    ``seed`` counts up from prompt to prompt; ``steps`` and ``guidance`` are the sampler's.
    """

    every: int = 0
    prompts: tuple[str, ...] = ()
    seed: int = 0
    steps: int = 28
    guidance: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One file: a whole training."""

    model: Model
    data: Data
    objective: Objective
    optim: Optim
    output: Output
    times: Times = field(default_factory=Times)
    parallel: Parallel = field(default_factory=Parallel)
    samples: Samples = field(default_factory=Samples)
    seed: int = 0
    device: Device = "cuda"

    @property
    def fingerprint(self) -> str:
        """What settings must share with a checkpoint to go on from it: all but length, place and speed."""
        given = dataclasses.asdict(self)
        del given["optim"]["steps"], given["optim"]["micro_batch"], given["parallel"]
        del given["output"], given["samples"], given["device"]
        del given["data"]["threads"], given["data"]["cache"], given["data"]["visits"]
        return content_id("training", settings=given)


def load(path: Path) -> Training:
    """Read one training file. Raises ConfigError naming file, key and remedy."""
    training = load_toml(Training, path)
    check(training, f"{path.parent.name}/{path.name}")
    return training


def check(training: Training, where: str) -> None:
    """Refuse settings that contradict each other. Raises ConfigError."""
    for rule in (_objective, _model, _numbers, _intervals):
        for wrong in rule(training):
            raise ConfigError(f"{where}: {wrong}")
    check_alphas(training.objective.alphas, where)


def to_json(training: Training) -> str:
    """Return the settings as they are stored beside results."""
    return json.dumps(dataclasses.asdict(training), indent=1, sort_keys=True) + "\n"


def _objective(training: Training) -> Any:
    goal = training.objective
    if goal.beta is not None:
        yield (
            f"objective.beta = {goal.beta:g} means something else in every trainer: give objective.kappa, "
            f"which for this beta is: {conversions(goal.beta)}"
        )
    if goal.kind == "dpo" and (goal.kappa is None or goal.kappa <= 0):
        yield "objective.kappa is missing or not above 0: dpo needs it (2500 was published for SDXL)"
    if goal.kind == "sft" and (goal.kappa is not None or any(goal.alphas) or goal.safeguard or goal.sft):
        yield "objective: kappa, alpha, higher, safeguard, sft are of kind dpo: remove them or set kind"
    if goal.weighting == "1-t" and training.model.family not in FLOW:
        yield f"objective.weighting = '1-t' is for flow models; {training.model.family} is none: use 'none'"
    if min(goal.confidence, goal.safeguard, goal.sft) < 0:
        yield "objective: confidence, safeguard and sft must be 0 or above"


def _model(training: Training) -> Any:
    model = training.model
    if model.reference == "cached" and training.data.cache is None:
        yield "model.reference = 'cached' keeps errors under data.cache: set it to a folder or s3:// prefix"
    if model.train == "full" and model.reference == "adapters" and training.objective.kind == "dpo":
        yield "model.reference = 'adapters' needs train = 'lora': use 'frozen'"
    if model.family != "wan" and any(size.frames != 1 for size in training.data.sizes):
        yield f"data.sizes: {model.family} makes images: frames must be 1"
    if model.family == "qwen_image" and model.compile and model.reference == "cached":
        yield (
            "model.reference = 'cached' does not fit compile of qwen_image, whose programs depend on which "
            "prompts came before: use 'frozen' or 'adapters'"
        )
    if training.optim.kind == "adamw8bit" and training.parallel.kind == "fsdp":
        yield "optim.kind = 'adamw8bit' does not know weights divided by fsdp: use 'adamw', or kind = 'ddp'"
    if model.rank < 1:
        yield "model.rank must be 1 or above"


def _numbers(training: Training) -> Any:
    optim, data, times = training.optim, training.data, training.times
    if not data.runs or not data.sizes:
        yield "data.runs and data.sizes must be lists of at least one entry"
    if min(optim.batch, optim.micro_batch, optim.steps) < 1 or optim.batch % optim.micro_batch:
        yield "optim: batch, micro_batch and steps must be above 0, and micro_batch must divide batch"
    if min(data.threads, data.visits) < 1:
        yield "data.threads and data.visits must be above 0"
    if not (0 <= data.held_out < 1 and 0 <= data.caption_dropout <= 1 and 0 <= optim.ema < 1):
        yield "data.held_out, data.caption_dropout and optim.ema must be shares between 0 and 1"
    if not (optim.lr > 0 and times.std > 0 and times.shift > 0):
        yield "optim.lr, times.std and times.shift must be above 0"
    if any(share.weight <= 0 for share in data.categories):
        yield "data.categories: a weight must be above 0: leave the category out instead"
    if any(size.width % 16 or size.height % 16 for size in data.sizes):
        yield "data.sizes: width and height must be multiples of 16"


def _intervals(training: Training) -> Any:
    output, samples = training.output, training.samples
    if output.checkpoint % max(1, output.log):
        yield "output.checkpoint must be a multiple of output.log, or a resumed log would differ"
    if samples.every < 0 or samples.every % max(1, output.log):
        yield "samples.every must be a multiple of output.log, or 0"
    if samples.every and not (samples.prompts and samples.steps > 0):
        yield "samples.prompts must not be empty, and samples.steps above 0: or leave [samples] out"
    if min(output.log, output.checkpoint, output.keep) < 1:
        yield "output.log, output.checkpoint and output.keep must be above 0"
