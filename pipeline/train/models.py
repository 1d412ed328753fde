"""What is trained and what it is held against: the policy, the reference model, and their inputs."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Device, data_root
from pipeline.errors import ConfigError
from pipeline.ids import content_id
from pipeline.storage import Store, open_store
from pipeline.train.compiling import compile_blocks, require_compiler
from pipeline.train.data import Item, pixels
from pipeline.train.families import FAMILIES, Condition, Family
from pipeline.train.noise import Process
from pipeline.train.parallel import ALONE, Ranks, choose, on_host, replicated, shard
from pipeline.train.settings import FLOW, Model, ParallelKind, Resolution
from pipeline.weights import Weights, locate, read_pins

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline.media.frames import Frames
    from pipeline.train.shards import Sample

ADAPTER = "default"


class Policy:
    """The denoiser that is trained, and the same before training as its reference.

    Both are called by one path in one precision, else equal weights would not give equal errors: a bf16
    reference beside a float32 policy alone makes z a coin toss at step 0. Layers stay in evaluation mode.
    Raises ConfigError, CorruptError, StorageError.

    Over several ``ranks`` it lies as ``kind`` says; for "auto", training a number takes ``more`` bytes beside
    its own. Predictions are then asked for by all ranks at a time.
    """

    def __init__(
        self,
        settings: Model,
        *,
        device: Device,
        seed: int,
        ranks: Ranks = ALONE,
        kind: ParallelKind = "auto",
        more: int = 0,
    ) -> None:
        import torch

        self.settings, self.family = settings, FAMILIES[settings.family]
        self.device = torch.device(device)
        if settings.compile:
            require_compiler(self.device, "model.compile")
        self.pipe = _pipeline(settings, self.family)
        self.model: nn.Module = getattr(self.pipe, self.family.denoiser)
        self.model.requires_grad_(False).eval()
        self.process = _process(settings, self.pipe)
        self.frozen: nn.Module | None = None
        if settings.train == "lora":
            adapt(self.model, self.family, settings.rank, seed)
        if settings.train == "full":
            self.model.requires_grad_(True)
        if settings.checkpointing:
            self.model.enable_gradient_checkpointing()
        if settings.reference == "frozen":
            # Flags and all: even under no_grad torch multiplies otherwise where weights want gradients.
            self.frozen = copy.deepcopy(self.model)
        for model in filter(None, (self.frozen, self.model)) if settings.compile else ():
            compile_blocks(model, self.family)
        self._plain, self._ranks = type(self.model), ranks
        memory = (
            torch.cuda.get_device_properties(self.device).total_memory if self.device.type == "cuda" else None
        )
        self.layout = choose(kind, ranks, needed=self._bytes(more), memory=memory)
        for model in filter(None, (self.frozen, self.model)):
            if self.layout.kind == "fsdp":
                half = settings.train == "full" and settings.precision == "bf16"
                shard(model, ranks, self.device, half=half)
            model.to(self.device)
        self._called = self.model
        if self.layout.kind == "ddp":
            # What Qwen-Image's last block makes of the text leads nowhere.
            self._called = replicated(self.model, idle=settings.family == "qwen_image")
        self._adapters = list(self.trained().values()) if settings.train == "lora" else []

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are trained, by name."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def adding_up(self, last: bool) -> AbstractContextManager[None]:
        """Return in what a forward and backward pass runs that is the ``last`` of an update, or is not.

        Before the last DDP leaves gradients with each rank; FSDP2 divides them always, for want of room.
        """
        if last or self.layout.kind != "ddp":
            return nullcontext()
        return self._called.no_sync()  # type: ignore[no-any-return]

    @contextmanager
    def whole(self) -> Iterator[Any]:
        """Give the pipeline with its denoiser in one piece to the first rank, and None to the others."""
        if self.layout.kind != "fsdp":
            yield self.pipe if self._ranks.first else None
            return
        weights = on_host(self.model.state_dict(), self._ranks)
        if not self._ranks.first:
            yield None
            return
        from accelerate import init_empty_weights  # type: ignore[import-untyped]

        with init_empty_weights():
            model = self._plain.from_config(self.model.config)
        model.load_state_dict(weights, assign=True)
        setattr(self.pipe, self.family.denoiser, model)
        yield self.pipe
        setattr(self.pipe, self.family.denoiser, self.model)

    def predict(self, noisy: Tensor, time: Tensor, given: Condition) -> Tensor:
        """Return the policy's prediction; ``time`` as ``Process.timestep`` gives it."""
        import torch

        if torch.is_grad_enabled():
            return self._call(self._called, noisy, time, given)
        return self._detached(self.model, noisy, time, given)

    def predict_reference(self, noisy: Tensor, time: Tensor, given: Condition) -> Tensor:
        """Return the reference model's prediction, without gradients.

        Full training with cached errors has no other reference than the policy before its first update.
        """
        if self.frozen is not None:
            return self._detached(self.frozen, noisy, time, given)
        with self._without_adapters() if self.settings.train == "lora" else nullcontext():
            return self._detached(self.model, noisy, time, given)

    def _detached(self, model: nn.Module, noisy: Tensor, time: Tensor, given: Condition) -> Tensor:
        import torch

        # Compiled without gradients a block is another program, which rounds otherwise: z would not be 0.
        with torch.set_grad_enabled(self.settings.compile):
            return self._call(model, noisy, time, given).detach()

    def _call(self, model: nn.Module, noisy: Tensor, time: Tensor, given: Condition) -> Tensor:
        import torch

        kind = next(model.parameters()).dtype
        cast = {name: value.to(kind) if value.is_floating_point() else value for name, value in given.items()}
        half = self.settings.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext():
            return self.family.predict(model, noisy.to(kind), time, cast, self.settings.guidance)

    def _bytes(self, more: int) -> int:
        """Return what a rank holds if nothing is divided; ``more`` of each number that is trained."""
        from torch import nn

        held = [part for part in (*self.pipe.components.values(), self.frozen) if isinstance(part, nn.Module)]
        weights = sum(value.nbytes for part in held for value in part.parameters())
        return weights + more * sum(value.numel() for value in self.trained().values())

    @contextmanager
    def _without_adapters(self) -> Iterator[None]:
        import torch

        if self.settings.compile:  # without adapters it is another program as well
            ends = [value.data for name, value in self.trained().items() if "lora_B" in name]
            held = [value.clone() for value in ends]
            torch._foreach_zero_(ends)
            try:
                yield
            finally:
                torch._foreach_copy_(ends, held)
            return
        self.model.disable_adapters()  # type: ignore[operator]
        for value in self._adapters:
            value.requires_grad_()  # peft unsets it, and FSDP2 may first look now for what is trained
        try:
            yield
        finally:
            self.model.enable_adapters()  # type: ignore[operator]


class Encoder:
    """Samples to latents and prompts to embeddings, one at a time, so that a batch's make-up changes nothing.

    What is made is kept in ``cache``, if there is one, under a hash of what it was made from.
    """

    def __init__(self, policy: Policy, *, cache: str | None) -> None:
        self._policy, self._family = policy, policy.family
        self._store: Store | None = None if cache is None else open_store(cache)
        self._about = {"family": policy.settings.family, "weights": identity(policy.settings)}
        self._empty: Condition | None = None
        for name, part in policy.pipe.components.items():
            if name.startswith("text_encoder") and part is not None:
                part.to(policy.device).requires_grad_(False)
        policy.pipe.vae.to(policy.device).requires_grad_(False)

    def decode(self, sample: Sample, size: Resolution) -> Frames | None:
        """Return a sample's pixels unless its latents are kept; for the loader's threads."""
        kept = self._store is not None and self._store.size(self._key(sample, size)) is not None
        return None if kept else pixels(sample, size)

    def latents(self, item: Item, size: Resolution) -> Tensor:
        """Return [2, ...] float32 latents, the winner's first."""
        import torch

        def make() -> Condition:
            made = item.pixels if item.pixels is not None else pixels(item.sample, size)
            media = torch.from_numpy(made).to(self._policy.device).permute(0, 4, 1, 2, 3).float()
            media = media / 127.5 - 1
            sides = [self._family.encode(self._policy.pipe.vae, media[side : side + 1]) for side in (0, 1)]
            return {"latents": torch.cat(sides)}

        return self._kept(self._key(item.sample, size), make)["latents"].float()

    def condition(self, prompts: Sequence[str]) -> Condition:
        """Return the embeddings of ``prompts``; shorter ones are padded with zeros, as is their mask."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        each = [self._embedded(prompt) for prompt in prompts]
        return {
            name: torch.cat(values)
            if len({value.shape for value in values}) == 1
            else pad_sequence([value[0] for value in values], batch_first=True)
            for name in each[0]
            if (values := [one[name] for one in each])
        }

    def _embedded(self, prompt: str) -> Condition:
        if prompt == "" and self._empty is not None:  # dropped captions are all alike
            return self._empty
        key = content_id("embedding", prompt=prompt, **self._about)
        place = f"embeddings/{key[:2]}/{key}.safetensors"
        made = self._kept(place, lambda: self._family.embed(self._policy.pipe, prompt))
        if prompt == "":
            self._empty = made
        return made

    def _key(self, sample: Sample, size: Resolution) -> str:
        media = [hashlib.sha256(side).hexdigest() for side in (sample.winner, sample.loser)]
        shape = [size.frames, size.height, size.width]
        key = content_id("latents", media=media, size=shape, **self._about)
        return f"latents/{key[:2]}/{key}.safetensors"

    def _kept(self, key: str, make: Any) -> Condition:
        """Return what is kept under ``key``, made and put there first if it is missing."""
        import torch
        from safetensors.torch import load, save

        with torch.no_grad():
            if self._store is None:
                return make()  # type: ignore[no-any-return]
            if self._store.size(key) is None:
                made = {part: value.contiguous().cpu() for part, value in make().items()}
                self._store.put(key, save(made))
            kept = load(self._store.get(key))
            return {part: value.to(self._policy.device, non_blocking=True) for part, value in kept.items()}


def _pipeline(settings: Model, family: Family) -> Any:
    """Return the diffusers pipeline of ``settings`` on the host."""
    import diffusers
    import torch

    kind = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    exact = {"vae": torch.float32} | ({family.denoiser: torch.float32} if settings.train == "full" else {})
    folder = _folder(settings)
    pipe = getattr(diffusers, family.pipeline).from_pretrained(
        folder, dtype={"default": kind, **exact}, use_safetensors=True, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _folder(settings: Model) -> Path:
    if Path(settings.weights).is_dir():
        return Path(settings.weights)
    if _revision(settings) is None:
        raise ConfigError(
            f"model.weights = {settings.weights!r} is no folder here, nor pinned in infra/weights.toml: give "
            "a folder, or a repository of the hub and its commit as model.revision"
        )
    return locate(Weights(repo=settings.weights, revision=_revision(settings), disk=0.0, memory=0.0))


def _revision(settings: Model) -> str | None:
    pins = {pin.repo: pin.revision for pin in read_pins(data_root() / "infra" / "weights.toml")}
    return settings.revision or pins.get(settings.weights)


def identity(settings: Model) -> str:
    """Return what names the weights that embed and encode: a folder, or a repository and its commit."""
    folder = Path(settings.weights)
    return str(folder.absolute()) if folder.is_dir() else f"{settings.weights}@{_revision(settings)}"


def _process(settings: Model, pipe: Any) -> Process:
    if settings.family in FLOW:
        return Process("flow")
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    predicts = scheduler.config.prediction_type
    if predicts not in ("epsilon", "v_prediction"):
        raise ConfigError(
            f"{settings.weights}: predicts {predicts!r}: only epsilon and v_prediction are known"
        )
    return Process(predicts, tuple(scheduler.alphas_cumprod.double().tolist()))


def adapt(model: Any, family: Family, rank: int, seed: int) -> None:
    """Add adapters that change nothing yet; they are float32 whatever the weights are."""
    import torch

    try:
        from peft import LoraConfig
    except ImportError:
        raise ConfigError("model.train = 'lora' needs peft: pip install 'vipo[train]'") from None
    config = LoraConfig(
        r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(family.adapted)
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model.add_adapter(config, adapter_name=ADAPTER)
    for value in model.parameters():
        if value.requires_grad:
            value.data = value.data.float()
