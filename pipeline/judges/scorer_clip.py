"""Scorers that are CLIP models of transformers: CLIP, PickScore, LAION's aesthetic predictor.

A video's score is the mean over evenly spaced frames.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pipeline import media
from pipeline.errors import ConfigError, ItemError, MediaError, WorkerError
from pipeline.judges.base import JudgeSpec, Media
from pipeline.judges.scorer import Score, Side
from pipeline.judges.shown import sampled
from pipeline.judges.untrusted import printable
from pipeline.media.frames import Frames
from pipeline.weights import locate

if TYPE_CHECKING:
    import torch

PICTURES = 32
"""Pictures that a model is given at a time."""

HEAD = (0, 2, 4, 6, 7)
"""Places of the linear layers in LAION's improved predictor; between them lies dropout, nothing here."""

LONGEST_REASON = 300


class _PictureScorer(ABC):
    """Sees pictures, on the GPU if there is one; in float32, as the published scores were made."""

    def __init__(self, spec: JudgeSpec) -> None:
        """Raise ConfigError for a row without weights."""
        if spec.weights is None:
            raise ConfigError(f"judge {spec.name}: a scorer of this kind needs weights: name them in its row")
        self._weights, self._frames = spec.weights, int(spec.options.get("frames", 1))
        self._device = "cpu"
        self._model: Any = None
        self._processor: Any = None

    @abstractmethod
    def _load(self, folder: Path) -> Any:
        """Return the model. Raises ValueError, or what transformers raises, for other weights."""

    @abstractmethod
    def _values(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Return the [n] scores of [n, 3, height, width] pixels and n prompts."""

    def open(self) -> None:
        """Load the weights. Raises WorkerError if they are of another model, and what ``locate`` raises."""
        import torch
        from transformers import CLIPImageProcessorPil
        from transformers.utils import logging

        logging.set_verbosity_error()  # it would report the head as a fault
        logging.disable_progress_bar()
        folder = locate(self._weights)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            # Pillow's resampling: torchvision's, taken where it is installed, gives other scores.
            self._processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
            self._model = self._load(folder).to(self._device).eval()
        except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
            raise WorkerError(
                f"{folder}: not to be loaded ({printable(str(error))[:LONGEST_REASON]}): put the files of "
                f"{self._weights.repo} there whole"
            ) from error

    def scores(self, sides: Sequence[Side]) -> list[Score]:
        """Score what decodes; a few sides at a time are held decoded."""
        if self._model is None:
            raise WorkerError("judge was asked before open(): call open() once in the worker")
        found: list[Score] = []
        rest = iter(sides)
        while some := list(islice(rest, max(1, PICTURES // self._frames))):
            found += self._some(some)
        return found

    def close(self) -> None:
        """Free the device."""
        self._model = None

    def _some(self, sides: Sequence[Side]) -> list[Score]:
        shown = [_shown(medium, self._frames) for _, medium in sides]
        pictures = [
            (prompt, frame)
            for (prompt, _), frames in zip(sides, shown, strict=True)
            if not isinstance(frames, MediaError)
            for frame in frames
        ]
        values = iter(self._asked(pictures))
        return [
            frames if isinstance(frames, MediaError) else _score(list(islice(values, len(frames))))
            for frames in shown
        ]

    def _asked(self, pictures: Sequence[tuple[str, Frames]]) -> list[float]:
        """Return the score of each prompt and picture, [height, width, 3]."""
        import torch

        if not pictures:
            return []
        frames = [frame for _, frame in pictures]
        made = self._processor(images=frames, input_data_format="channels_last", return_tensors="pt")
        with torch.inference_mode():
            pixels = made["pixel_values"].to(self._device)
            values: list[float] = self._values(pixels, [prompt for prompt, _ in pictures]).tolist()
        return values


class ClipScorer(_PictureScorer):
    """Cosine of prompt and picture times the model's logit scale (Radford et al., arXiv 2103.00020).

    The softmax of two such scores is PickScore's probability (Kirstain et al., arXiv 2305.01569, eq. 1).
    """

    def _load(self, folder: Path) -> Any:
        from transformers import CLIPModel, CLIPTokenizer

        model = _whole(CLIPModel, folder)
        self._tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        known, needed = len(self._tokenizer), model.config.text_config.vocab_size
        if known != needed:  # without its files it is made all the same, and empty
            raise ValueError(f"its tokenizer knows {known} tokens, the model {needed}")
        return model

    def _values(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        distinct = list(dict.fromkeys(prompts))
        tokens = self._tokenizer(
            distinct,
            padding=True,
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._device)
        texts = _unit(self._model.get_text_features(**tokens).pooler_output)
        asked = texts[[distinct.index(prompt) for prompt in prompts]]
        seen = _unit(self._model.get_image_features(pixel_values=pixels).pooler_output)
        scores: torch.Tensor = self._model.logit_scale.exp() * (asked * seen).sum(-1)
        return scores


class AestheticScorer(_PictureScorer):
    """LAION's improved predictor: five linear layers on CLIP's picture embedding; the prompt has no say.

    Layers and embedding lie in one model.safetensors, as in the hub's shunk031/aesthetics-predictor-v2-...
    """

    def _load(self, folder: Path) -> Any:
        from safetensors.torch import load_file
        from transformers import CLIPVisionModelWithProjection

        held = load_file(folder / "model.safetensors", device=self._device)
        places = {int(found[1]) for name in held if (found := re.match(r"layers\.(\d+)\.", name))}
        if places != set(HEAD):
            raise ValueError(f"its head has linear layers at {sorted(places)}, not at {list(HEAD)}")
        self._head = [(held[f"layers.{place}.weight"], held[f"layers.{place}.bias"]) for place in HEAD]
        return _whole(CLIPVisionModelWithProjection, folder)

    def _values(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        from torch.nn.functional import linear

        del prompts
        rows = _unit(self._model(pixel_values=pixels).image_embeds)
        for weight, bias in self._head:
            rows = linear(rows, weight, bias)
        return rows[:, 0]


def _whole(kind: Any, folder: Path) -> Any:
    """Load a model in full: transformers would fill what is missing with random numbers."""
    import torch

    model, about = kind.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # they are refused below, with their names
        output_loading_info=True,
    )
    other = {*about["missing_keys"], *(name for name, *_ in about["mismatched_keys"])}
    if other:
        raise ValueError(f"no {kind.__name__} of its config.json: without {', '.join(sorted(other)[:3])}")
    return model


def _unit(rows: torch.Tensor) -> torch.Tensor:
    """Return the [n, width] rows, each of length 1."""
    from torch.nn.functional import normalize

    return normalize(rows, dim=-1)


def _shown(medium: Media, count: int) -> Frames | MediaError:
    """Return at most ``count`` frames, [frames, height, width, 3]; or why there are none."""
    try:
        frames = media.decode(medium.data, medium.mime)
    except MediaError as error:
        return error
    return frames[sampled(len(frames), count)] if len(frames) > count else frames


def _score(values: Sequence[float]) -> Score:
    mean = fmean(values)
    return mean if math.isfinite(mean) else ItemError(f"its score is {mean}, no number")
