"""Finished pixels to frames on the host, while the device goes on with the next batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import ItemError
from pipeline.generators.base import Rendered

if TYPE_CHECKING:
    import torch


class Frames:
    """The frames of a batch on their way to the host.

    Takes [batch, 3, h, w] or [batch, frames, 3, h, w] in [0, 1] on any device; makes [batch, frames, h, w, 3]
    of bytes there, and on a GPU copies them to pinned memory in a stream of their own.
    """

    def __init__(self, pixels: torch.Tensor) -> None:
        import torch

        if pixels.ndim == 4:
            pixels = pixels.unsqueeze(1)
        finite = pixels.isfinite().flatten(1).all(1)  # a byte cannot say that it was no number
        frames = pixels.float().mul(255).round_().clamp_(0, 255).to(torch.uint8).movedim(2, -1).contiguous()
        self._done: torch.cuda.Event | None = None
        if pixels.is_cuda:
            self._frames, self._finite, self._done = _copies(frames, finite)
        else:
            self._frames, self._finite = frames, finite

    def wait(self) -> list[Rendered | ItemError]:
        """Return the results in order, as soon as they have arrived."""
        if self._done:
            self._done.synchronize()
        finite = self._finite.tolist()
        return [
            Rendered(frames=frames) if whole else ItemError("the model made NaN or infinite pixels")
            for frames, whole in zip(self._frames.numpy(), finite, strict=True)
        ]


def _copies(
    frames: torch.Tensor, finite: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.cuda.Event]:
    """Start copying to pinned memory once the device has made ``frames``; the event says when it is done."""
    import torch

    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        hosts = []
        for tensor in (frames, finite):
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            host.copy_(tensor, non_blocking=True)
            tensor.record_stream(stream)  # its memory is not given away while it is copied
            hosts.append(host)
        done.record(stream)
    return hosts[0], hosts[1], done
