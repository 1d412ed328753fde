"""The video families: which arguments each pipeline class of diffusers takes, and its quirks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import ItemError
from pipeline.generators.base import Request
from pipeline.generators.diffusion.family import Family, encoded, pixels

if TYPE_CHECKING:
    from PIL.Image import Image

Arguments = Callable[[Sequence[Request]], dict[str, Any]]


def _length(step: int) -> Arguments:
    """Return what asks for size and length; the VAE makes a first frame, and then ``step`` at a time.

    Asked for another length the pipelines would make the next shorter or longer one and say nothing.
    """

    def arguments(requests: Sequence[Request]) -> dict[str, Any]:
        frames = requests[0].size.frames
        if frames % step != 1:
            near = max(frames - 1, 0) // step * step + 1
            raise ItemError(
                f"{frames} frames cannot be made, only {step}k + 1: set the row's frames to {near}"
            )
        return {**pixels(requests), "num_frames": frames}

    return arguments


def _ltx_length(requests: Sequence[Request]) -> dict[str, Any]:
    """Say the speed as well: the model places frames in seconds."""
    return {**_length(8)(requests), "frame_rate": requests[0].size.fps}


def _from_image(length: Arguments) -> Arguments:
    """Return what also gives the first frame of the one request."""
    return lambda requests: {**length(requests), "image": _first_frame(requests[0])}


def _first_frame(request: Request) -> Image:
    """Return the image that the video starts from, scaled to fill the video's size and cut at the middle."""
    from PIL import Image, ImageOps

    if request.source is None:
        raise ItemError(
            "no image to start from: give the row starts_from = 'image' and use shared_first_frame"
        )
    size = (request.size.width, request.size.height)
    return ImageOps.fit(Image.fromarray(request.source[0]), size, Image.Resampling.LANCZOS)


_wan_prompt = encoded(
    "prompt_embeds",
    None,
    do_classifier_free_guidance=False,
    max_sequence_length=512,  # the call's; encode_prompt alone would take 226
)
_WAN_OPTIONS = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "guidance_2": "guidance_scale_2",  # of transformer_2, which Wan2.2-A14B denoises the last steps with
}
_ltx_prompt = encoded("prompt_embeds", "prompt_attention_mask", None, None, do_classifier_free_guidance=False)

WAN = Family(
    pipeline="WanPipeline",
    encode=_wan_prompt,
    options=_WAN_OPTIONS,
    arguments=_length(4),
    denoisers=("transformer", "transformer_2"),
    precise=("vae",),  # as the authors' own code has it
    cacheable=True,
)

WAN_I2V = Family(
    pipeline="WanImageToVideoPipeline",
    saved_as=("WanPipeline",),  # TI2V-5B does both
    encode=_wan_prompt,
    options=_WAN_OPTIONS,
    arguments=_from_image(_length(4)),
    batchable=False,  # it encodes the images once for each of the generators
    denoisers=("transformer", "transformer_2"),
    precise=("vae",),
    cacheable=True,
)

LTX = Family(
    pipeline="LTXPipeline",
    encode=_ltx_prompt,
    arguments=_ltx_length,
    cacheable=True,
)

LTX_I2V = Family(
    pipeline="LTXImageToVideoPipeline",
    saved_as=("LTXPipeline",),
    encode=_ltx_prompt,
    arguments=_from_image(_ltx_length),
    batchable=False,  # one image is given
    cacheable=True,
)

HUNYUAN_VIDEO = Family(
    pipeline="HunyuanVideoPipeline",
    encode=encoded("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask"),
    negative="none",  # guidance is distilled into the model
    arguments=_length(4),
    cacheable=True,
)

FAMILIES = (WAN, WAN_I2V, LTX, LTX_I2V, HUNYUAN_VIDEO)
