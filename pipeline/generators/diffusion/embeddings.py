"""Prompts to embeddings: once a prompt, kept on the CPU, joined into batches."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.generators.diffusion.family import Embeddings, Family, Pipeline

if TYPE_CHECKING:
    import torch

KEPT = 64
"""Prompts whose embeddings are kept: seeds of a prompt follow each other. HiDream's weigh 33 MB each."""


class Encoder:
    """Encodes prompts one by one, so that a prompt's embeddings do not depend on its company."""

    def __init__(
        self, pipe: Pipeline, family: Family, device: torch.device, settings: Mapping[str, Any], negative: str
    ) -> None:
        self._pipe, self._family = pipe, family
        self._settings = {"device": device, **settings}
        self._kept: OrderedDict[str, Embeddings] = OrderedDict()
        self._negative_text = negative
        self._negative: Embeddings | None = None

    def __call__(self, text: str) -> Embeddings:
        """Return the embeddings of ``text`` and of the negative prompt, by the call's arguments."""
        if text not in self._kept:
            self._kept[text] = self._encode(self._family.encode, text) | self._negatives()
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(text)
        return self._kept[text]

    def _negatives(self) -> Embeddings:
        if self._family.negative != "embeddings":
            return {}
        if self._negative is None:
            encode = self._family.encode_negative or self._family.encode
            plain = self._encode(encode, self._negative_text)
            self._negative = {f"negative_{name}": value for name, value in plain.items()}
        return self._negative

    def _encode(self, encode: Any, text: str) -> Embeddings:
        import torch

        with torch.no_grad():
            found: Embeddings = encode(self._pipe, text, self._settings)
        return {name: _on_host(value) for name, value in found.items()}


def joined(parts: Sequence[Embeddings], family: Family, device: torch.device) -> Embeddings:
    """Return the embeddings of a batch on ``device``."""
    return {
        name: _join([part[name] for part in parts], family.axis.get(name, 0), device) for name in parts[0]
    }


def _join(parts: Sequence[Any], axis: int, device: torch.device) -> Any:
    import torch

    if isinstance(parts[0], list):  # of one tensor a prompt, each of its own length
        return [tensor.to(device, non_blocking=True) for part in parts for tensor in part]
    return torch.cat(list(parts), dim=axis).to(device, non_blocking=True)


def _on_host(value: Any) -> Any:
    return [tensor.cpu() for tensor in value] if isinstance(value, list) else value.cpu()
