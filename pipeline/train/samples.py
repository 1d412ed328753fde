"""Pictures of fixed prompts while a model is trained, beside those of the model it began as.

The family's own pipeline draws them with the weights as they are, averaged ones if there are any. Noise comes
from generators of its own, so a training with samples is the training without them to the bit.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.ids import content_id
from pipeline.media.frames import Frames

if TYPE_CHECKING:
    from pipeline.train.loop import Run

SIDE = 384
"""Longest side of a picture on a sheet; a video is a strip of STRIP frames."""

STRIP = 4
GAP, LETTERS = 12, 14


class Samples:
    """``samples/<updates>.png`` of a training's folder. All ranks draw: weights may lie over all of them."""

    def __init__(self, run: Run) -> None:
        self._run, self._settings = run, run.training.samples
        run.policy.pipe.run_safety_checker = _unchecked
        self._folder = Path(run.training.output.folder) / "samples"
        size = run.training.data.sizes[0]
        asked = content_id("samples", settings=[repr(replace(self._settings, every=0)), repr(size)])
        self._first = self._folder / f"start-{asked[:8]}.png"

    def draw(self, step: int) -> Image.Image:
        """Draw the prompts after ``step`` updates, write the sheet and return it.

        At 0 it shows the model as it began, and later sheets show that beside; a training that got its
        prompts on the way has nothing to show there.
        """
        with _averages(self._run):
            pictures = [_strip(self._draw(number)) for number in range(len(self._settings.prompts))]
        columns = {_title(step): pictures}
        if step and self._first.exists():
            with Image.open(self._first) as held:
                columns = {_title(0): _cut(held.convert("RGB"), len(pictures)), **columns}
        made = sheet(self._settings.prompts, columns)
        if self._run.ranks.first:
            self._folder.mkdir(exist_ok=True)
            if not step:
                _stacked(pictures).save(self._first)
            made.save(self._folder / f"{step:08d}.png")
        return made

    def _draw(self, number: int) -> Frames:
        """Return [frames, height, width, 3] of one prompt."""
        import torch

        policy, asked, size = self._run.policy, self._settings, self._run.training.data.sizes[0]
        half = torch.autocast(policy.device.type, torch.bfloat16, enabled=policy.settings.precision == "bf16")
        # A compiled block would be compiled anew for what a sampler asks of it.
        with torch.compiler.set_stance("force_eager"), torch.no_grad(), half:
            made = policy.pipe(
                prompt=asked.prompts[number],
                height=size.height,
                width=size.width,
                num_inference_steps=asked.steps,
                generator=torch.Generator().manual_seed(asked.seed + number),
                output_type="np",
                return_dict=False,
                **policy.family.asked(asked.guidance, size.frames),
            )[0]
        frames = np.nan_to_num(np.asarray(made)).reshape(-1, size.height, size.width, 3)
        shown: Frames = (frames.clip(0, 1) * 255).round().astype(np.uint8)
        return shown


def _unchecked(pictures: Any, *_: Any) -> tuple[Any, None]:
    """Stand for Stable Diffusion 1.5's safety checker, which blackens pictures and lies on the host."""
    return pictures, None


def sheet(prompts: tuple[str, ...], columns: dict[str, list[Image.Image]]) -> Image.Image:
    """Return one picture of all: a tile a prompt, its pictures side by side under titles, its text below."""
    font = ImageFont.load_default(LETTERS)
    wide, high = next(iter(columns.values()))[0].size
    column = max(wide, int(font.getlength("at the start"))) + GAP
    tile = max(len(columns) * column, SIDE)
    said = [textwrap.wrap(prompt, int(tile / (0.55 * LETTERS)))[:3] for prompt in prompts]
    row = high + (LETTERS + 4) * (2 + max(map(len, said)))
    across = math.ceil(math.sqrt(len(prompts) * row / (tile + GAP)))
    down = math.ceil(len(prompts) / across)
    drawn = Image.new("RGB", (across * (tile + GAP) + GAP, down * row + GAP), "white")
    pen = ImageDraw.Draw(drawn)
    for number, words in enumerate(said):
        left, top = GAP + number % across * (tile + GAP), GAP + number // across * row
        for place, (title, pictures) in enumerate(columns.items()):
            pen.text((left + place * column, top), title, "dimgrey", font)
            drawn.paste(pictures[number], (left + place * column, top + LETTERS + 4))
        pen.text((left, top + LETTERS + 6 + high), "\n".join(words), "black", font)
    return drawn


@contextmanager
def _averages(run: Run) -> Iterator[None]:
    """Have averaged weights in the place of the last ones, which lie in theirs meanwhile."""
    import torch

    def exchange() -> None:
        with torch.no_grad():
            for name, mean in run.averaged.items():
                value = run.trained[name].detach().clone()
                run.trained[name].copy_(mean)
                mean.copy_(value)

    exchange()
    try:
        yield
    finally:
        exchange()


def _title(step: int) -> str:
    return f"after {step:,}" if step else "at the start"


def _strip(frames: Frames) -> Image.Image:
    """Return an image, or frames from all of a video side by side, small enough for a sheet."""
    shown = np.linspace(0, len(frames) - 1, min(STRIP, len(frames))).round().astype(int)
    scale = min(1.0, SIDE / max(frames.shape[1:3]))
    wide, high = round(frames.shape[2] * scale), round(frames.shape[1] * scale)
    strip = Image.fromarray(np.concatenate(frames[shown], axis=1))
    return strip.resize((wide * len(shown), high), Image.Resampling.LANCZOS)


def _stacked(pictures: list[Image.Image]) -> Image.Image:
    return Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures]))


def _cut(stacked: Image.Image, count: int) -> list[Image.Image]:
    return [Image.fromarray(part) for part in np.split(np.asarray(stacked), count)]
