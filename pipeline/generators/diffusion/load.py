"""A folder of weights to a pipeline that is ready to be called."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import nearest
from pipeline.errors import WorkerError
from pipeline.generators.diffusion.family import Family, Pipeline
from pipeline.generators.diffusion.options import Options
from pipeline.weights import Weights, locate

if TYPE_CHECKING:
    import torch

ROOM = 0.8
"""Share of a GPU's memory that weights may fill; activations need the rest."""


def load(weights: Weights, options: Options, device: torch.device) -> Pipeline:
    """Return the pipeline of ``weights`` on ``device``. Raises WorkerError with cause and remedy."""
    import diffusers

    folder = locate(weights)
    _check_folder(folder, options.family)
    _check_device(options, device)
    pipe = getattr(diffusers, options.family.pipeline).from_pretrained(
        folder,
        torch_dtype=_dtypes(options),
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        **_borrowed(folder, weights, options),
        **options.family.load,
    )
    pipe.set_progress_bar_config(disable=True)
    _set_scheduler(pipe, options)
    _set_vae(pipe, options)
    for model in denoisers(pipe, options.family):
        _quantise(model, options.quantise, device)
    _place(pipe, device)
    for model in denoisers(pipe, options.family):
        _speed_up(model, options)
    return pipe


def denoisers(pipe: Pipeline, family: Family) -> list[Any]:
    """Return the models of ``pipe`` that denoise."""
    return [model for name in family.denoisers if (model := getattr(pipe, name, None)) is not None]


def memory(device: torch.device) -> float:
    """Return the bytes of a GPU's memory; a CPU's is the host's, which holds all weights already."""
    import torch

    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else math.inf


def _check_folder(folder: Path, family: Family) -> None:
    """Refuse another pipeline's checkpoint."""
    try:
        index = json.loads((folder / "model_index.json").read_bytes())
        named = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkerError(
            f"no pipeline of diffusers, its model_index.json cannot be read ({error})"
        ) from error
    if named not in (family.pipeline, *family.saved_as):
        raise WorkerError(
            f"holds a {named}, not a {family.pipeline}: set the row's option pipeline = {named!r}"
        )


def _check_device(options: Options, device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        able, name = torch.cuda.get_device_capability(device), torch.cuda.get_device_name(device)
        if options.dtype == "bfloat16" and able < (8, 0):
            raise WorkerError(f"{name} has no bfloat16: use a GPU of compute capability 8.0 or more")
        if options.quantise == "fp8" and able < (8, 9):
            raise WorkerError(f"{name} has no fp8: use a GPU of compute capability 8.9 or more, or int8")
    elif options.quantise == "fp8":
        raise WorkerError("a CPU has no fp8: use a GPU of compute capability 8.9 or more, or int8")


def _dtypes(options: Options) -> dict[str, torch.dtype]:
    import torch

    exact = dict.fromkeys(options.family.precise, torch.float32)
    return {"default": getattr(torch, options.dtype), **exact}


def _borrowed(folder: Path, weights: Weights, options: Options) -> dict[str, Any]:
    """Load the components that the checkpoint leaves to another repository."""
    import torch
    import transformers

    index = json.loads((folder / "model_index.json").read_bytes())
    missing = {name: kind for name, kind in options.family.borrowed.items() if not index.get(name, [None])[0]}
    if not missing:
        return {}
    if weights.borrowed is None:
        raise WorkerError(f"has no {', '.join(missing)}: name the repository that has, as borrowed weights")
    other, found = locate(weights.borrowed), {}
    model = {"dtype": getattr(torch, options.dtype), "use_safetensors": True}
    for name, kind in missing.items():
        more = {} if name.startswith("tokenizer") else model
        found[name] = getattr(transformers, kind).from_pretrained(other, local_files_only=True, **more)
    return found


def _set_scheduler(pipe: Pipeline, options: Options) -> None:
    """Put the spec's scheduler in the place of the checkpoint's, with its configuration."""
    import diffusers

    if options.scheduler is None and options.shift is None:
        return
    wanted = options.scheduler or type(pipe.scheduler).__name__
    known = [name for name in dir(diffusers) if name.endswith("Scheduler")]
    if wanted not in known:
        raise WorkerError(f"scheduler = {wanted!r} is not known to diffusers: {nearest(wanted, known)}")
    shift = "flow_shift" if "flow_shift" in pipe.scheduler.config else "shift"
    changed = {} if options.shift is None else {shift: options.shift}
    pipe.scheduler = getattr(diffusers, wanted).from_config(pipe.scheduler.config, **changed)


def _set_vae(pipe: Pipeline, options: Options) -> None:
    """Decode one item at a time: a batch's activations are the largest of all, and gain no speed."""
    with suppress(AttributeError, NotImplementedError):  # not every VAE can
        pipe.vae.enable_slicing()
    if options.vae == "tiling":
        pipe.vae.enable_tiling()


def _blocks(model: Any) -> Iterator[Any]:
    """Yield the repeated blocks of a denoiser, where nearly all of its work is done."""
    import torch

    named = getattr(model, "_repeated_blocks", None)
    if named:
        yield from (part for part in model.modules() if type(part).__name__ in named)
    else:
        lists = (part for part in model.children() if isinstance(part, torch.nn.ModuleList))
        yield from (block for part in lists for block in part)


def _quantise(model: Any, how: str, device: torch.device) -> None:
    if how == "none":
        return
    from torchao import quantization as ao

    config = {
        "int8": ao.Int8WeightOnlyConfig,
        "fp8": lambda: ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow()),
    }[how]()
    for block in _blocks(model):
        ao.quantize_(block, config, device=device)


def _speed_up(model: Any, options: Options) -> None:
    from diffusers.hooks.first_block_cache import FirstBlockCacheConfig

    if options.cache:
        model.enable_cache(FirstBlockCacheConfig(threshold=options.cache))
    if options.compile == "blocks":
        for block in _blocks(model):
            block.compile()


def _place(pipe: Pipeline, device: torch.device) -> None:
    """Move every component to ``device``; text encoders stay on the host where not all fit at once."""
    import torch

    models = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    weight = sum(_bytes(tensor) for part in models.values() for tensor in part.parameters())
    tight = weight > ROOM * memory(device)
    for name, part in models.items():
        if tight and name.startswith("text_encoder"):
            _stream(part, device)
        else:
            part.to(device)


def _stream(model: Any, device: torch.device) -> None:
    """Keep the weights of ``model`` on the host; each layer's are copied to ``device`` while it works."""
    import torch
    from diffusers.hooks.group_offloading import apply_group_offloading

    apply_group_offloading(
        model,
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=device.type == "cuda",
    )


def _bytes(tensor: torch.Tensor) -> int:
    """Return what a tensor weighs; a quantised one consists of others."""
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.nbytes
