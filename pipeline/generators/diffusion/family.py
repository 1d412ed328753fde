"""What differs between the pipelines of diffusers: one `Family` a pipeline class, everything else is shared.

A family says how a prompt becomes embeddings, by which arguments the pipeline takes them and the spec's
settings, and what may not share a batch. Image families stand in ``image.py``, video in ``video.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.generators.base import Request

Pipeline = Any
"""An instance of a pipeline class of diffusers, which has no types of its own."""

Embeddings = dict[str, Any]
"""Of one prompt, by the call's argument: a tensor [1, ...] on the CPU, or a list of one tensor."""

Encode = Callable[[Pipeline, str, Mapping[str, Any]], Embeddings]
"""(pipeline, text, extra arguments such as max_sequence_length) -> embeddings of this one text."""


def pixels(requests: Sequence[Request]) -> dict[str, Any]:
    """Return the arguments that say the size of an image; all ``requests`` ask for the same."""
    return {"height": requests[0].size.height, "width": requests[0].size.width}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One pipeline class of diffusers.

    pipeline: the class's name; it is what a checkpoint's model_index.json must name (or one of ``saved_as``:
        classes whose checkpoints this class loads as well).
    encode: embeddings of one prompt, called once per prompt. ``encoded`` below builds it for most.
    negative: how the call takes the negative prompt: "embeddings" (each argument of ``encode`` with
        ``negative_`` before it), "text" (``negative_prompt``; the pipeline encodes it in every call),
        "none". ``encode_negative`` where the pipeline treats it otherwise than a prompt.
    options: option of a spec -> argument of the call, for settings that the call takes as they are.
    arguments: what a batch of requests adds to the call: size, frames, first frames. Requests of one batch
        ask for the same size.
    axis: dimension along which embeddings are batched, where it is not 0.
    group: embeddings of unequal group never share a batch. For pipelines that decide something for a whole
        batch, or whose embeddings have the prompt's own length: padding changes the result in bfloat16,
        and its mask rules out the fastest attention.
    batchable: False where each request gets a call of its own: the pipeline takes no more, or a batch changes
        the result by more than rounding.
    cacheable: the first-block cache works: diffusers knows the blocks (not those of FLUX.2), and the pipeline
        says what each call of a denoiser is for (``cache_context``).
    denoisers: components that are compiled, quantised and cached; one that is absent (None) is skipped.
    precise: components kept in float32 whatever the spec's dtype.
    load, call: arguments of ``from_pretrained`` and of every call.
    borrowed: component -> class of transformers, for components that the checkpoint leaves to another
        repository (``Weights.borrowed``).

    The pipeline is called with ``output_type="pt"`` and ``return_dict=False``; the first thing it returns is
    [batch, 3, h, w] or [batch, frames, 3, h, w] in [0, 1].
    """

    pipeline: str
    encode: Encode
    encode_negative: Encode | None = None
    negative: Literal["embeddings", "text", "none"] = "embeddings"
    options: Mapping[str, str] = field(
        default_factory=lambda: {"steps": "num_inference_steps", "guidance": "guidance_scale"}
    )
    arguments: Callable[[Sequence[Request]], dict[str, Any]] = pixels
    axis: Mapping[str, int] = field(default_factory=dict)
    group: Callable[[Embeddings], Hashable] = lambda _: None
    batchable: bool = True
    cacheable: bool = False
    denoisers: tuple[str, ...] = ("transformer",)
    precise: tuple[str, ...] = ()
    saved_as: tuple[str, ...] = ()
    load: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    borrowed: Mapping[str, str] = field(default_factory=dict)


def encoded(*names: str | None, **arguments: Any) -> Encode:
    """Return an encoder that calls the pipeline's ``encode_prompt`` with ``arguments``.

    ``names`` say, in the order in which ``encode_prompt`` returns them, by which argument the call takes
    each (None: it does not).
    """

    def encode(pipe: Pipeline, text: str, extra: Mapping[str, Any]) -> Embeddings:
        returned = pipe.encode_prompt([text], **{**arguments, **extra})
        return {name: value for name, value in zip(names, returned, strict=True) if name}

    return encode
