"""One loaded checkpoint: requests that may share a batch to frames."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from pipeline.errors import WorkerError
from pipeline.generators.base import Request
from pipeline.generators.diffusion.embeddings import Encoder, joined
from pipeline.generators.diffusion.family import Embeddings
from pipeline.generators.diffusion.frames import Frames
from pipeline.generators.diffusion.load import load
from pipeline.generators.diffusion.options import Options
from pipeline.weights import Weights

if TYPE_CHECKING:
    import torch


class Model:
    """A pipeline on its device. Raises WorkerError, or what the libraries raise, if it cannot be loaded."""

    def __init__(self, weights: Weights, options: Options, device: torch.device) -> None:
        self._options, self._family, self._device = options, options.family, device
        self._pipe = load(weights, options, device)
        self._encode = Encoder(self._pipe, self._family, device, options.encode, options.negative_prompt)
        self._check_call()

    def denoise(self, requests: Sequence[Request]) -> list[Frames]:
        """Return the frames of requests for one size: one call for each run of them that may share one."""
        pairs = [(request, self._encode(request.prompt.text)) for request in requests]
        runs = groupby(pairs, key=lambda pair: self._family.group(pair[1]))
        return [self._call(*zip(*run, strict=True)) for _, run in runs]

    def recover(self) -> None:
        """Undo what a call leaves behind that was cut short. A GPU that died raises here at the latest."""
        import torch

        self._pipe.maybe_free_model_hooks()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
            gc.collect()
            torch.cuda.empty_cache()

    def _call(self, requests: Sequence[Request], embeddings: Sequence[Embeddings]) -> Frames:
        import torch

        options, family = self._options, self._family
        negative = {"negative_prompt": [options.negative_prompt] * len(requests)}
        returned = self._pipe(
            **joined(embeddings, family, self._device),
            **(negative if family.negative == "text" else {}),
            **family.arguments(requests),
            **{**family.call, **options.call},
            generator=[torch.Generator().manual_seed(request.seed) for request in requests],
            output_type="pt",
            return_dict=False,
        )
        return Frames(returned[0])

    def _check_call(self) -> None:
        """Find out now whether the pipeline takes what it will be called with, and encodes at all."""
        self._require(self._family.call)
        self._require(self._options.call)
        self._require(self._encode(""))

    def _require(self, arguments: Iterable[str]) -> None:
        known = inspect.signature(self._pipe.__call__).parameters
        for name in arguments:
            if name not in known:
                raise WorkerError(f"cannot be called: {self._family.pipeline} has no argument {name!r}")
