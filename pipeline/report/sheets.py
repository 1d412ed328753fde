"""Contact sheets: which pairs are shown, and their pictures small enough to travel inside the page."""

from __future__ import annotations

import base64
import io
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from pipeline import media
from pipeline.errors import CorruptError, MediaError, StorageError
from pipeline.media.frames import Frames
from pipeline.records import Agreement, Generation, Pair, Prompt, Reason, Verdict
from pipeline.report.data import ReportInput

IMAGE_SIDE = 256
"""Longest side of a still, in pixels."""

FRAME_WIDTH = 240
"""Width of one of the nine frames that stand for a video."""

IMAGE_BYTES, VIDEO_BYTES = 12_000, 22_000
"""Most bytes of one picture: eight categories of 32 pictures stay under 6 MB as base64."""

QUALITIES = (82, 70, 55, 40, 25, 12, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A data URI; a video is a 3x3 grid of frames that the page plays in ``seconds``."""

    uri: str
    width: int
    height: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One pair of a contact sheet with all that is known of it."""

    agreement: Agreement
    pair: Pair | None
    prompts: dict[str, Prompt]
    generations: dict[str, Generation]
    verdicts: tuple[Verdict, ...]


@dataclass(slots=True)
class Sampler:
    """Keeps the first ``sheet`` pairs by id of each category and outcome: ids are hashes, so a fair draw."""

    sheet: int
    _held: dict[tuple[str, Reason | None], list[tuple[str, str, Agreement]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, agreement: Agreement) -> None:
        """Offer one outcome; streams in any order give the same sheet."""
        held = self._held[agreement.category, agreement.reason]
        entry = (agreement.pair_id, agreement.id, agreement)
        if len(held) < self.sheet or entry[:2] < held[-1][:2]:
            insort(held, entry, key=lambda item: item[:2])
            del held[self.sheet :]

    def kept(self, category: str) -> list[Agreement]:
        """Return the kept pairs to show."""
        return [entry[2] for entry in self._held.get((category, None), [])]

    def dropped(self, category: str) -> list[Agreement]:
        """Return the dropped pairs to show: every reason gets its turn before one gets two."""
        queues = [(reason, [e[2] for e in self._held.get((category, reason), [])]) for reason in Reason]
        turns = [(turn, place) for turn in range(self.sheet) for place in range(len(queues))]
        chosen = [(place, turn) for turn, place in turns if turn < len(queues[place][1])][: self.sheet]
        return [queues[place][1][turn] for place, turn in sorted(chosen)]


def complete(chosen: Sequence[Agreement], verdicts: Sequence[Verdict], source: ReportInput) -> list[Sample]:
    """Look up pair, generations and prompts of the chosen outcomes: one pass over each stream."""
    wanted = {agreement.pair_id for agreement in chosen}
    pairs = {pair.id: pair for pair in source.pairs() if pair.id in wanted}
    made = {side for pair in pairs.values() for side in (pair.first_id, pair.second_id)}
    generations = {row.id: row for row in source.generations() if row.id in made}
    asked = {agreement.root_id for agreement in chosen} | {row.prompt_id for row in generations.values()}
    prompts = {row.id: row for row in source.prompts() if row.id in asked}
    answers: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        answers[verdict.pair_id].append(verdict)
    return [
        Sample(
            agreement=agreement,
            pair=pairs.get(agreement.pair_id),
            prompts=prompts,
            generations=generations,
            verdicts=tuple(answers[agreement.pair_id]),
        )
        for agreement in chosen
    ]


def picture(generation: Generation | None, fetch: Callable[[str, str], bytes]) -> Picture | str:
    """Return the picture of a generation, or one line that says why there is none."""
    if generation is None:
        return "This generation is not in the build."
    if generation.media_sha256 is None:
        return generation.reason or "Never generated."
    try:
        data = fetch(generation.media_sha256, generation.mime)
        return thumbnail(media.decode(data, generation.mime), generation.fps)
    except (StorageError, CorruptError, MediaError) as error:
        return str(error)


def thumbnail(frames: Frames, fps: int) -> Picture:
    """Shrink [frames, height, width, 3] to a JPEG still (0 fps) or a WebP grid of nine frames."""
    if fps:
        return _grid(frames, len(frames) / fps)
    still = _shrink(frames[0], min(1.0, IMAGE_SIDE / max(frames.shape[1:3])))
    return Picture(uri=_uri(still, "JPEG", IMAGE_BYTES), width=still.width, height=still.height, seconds=0.0)


def _grid(frames: Frames, seconds: float) -> Picture:
    scale = min(1.0, FRAME_WIDTH / frames.shape[2])
    cells = [_shrink(frames[i], scale) for i in np.linspace(0, len(frames) - 1, 9).round().astype(int)]
    width, height = cells[0].size
    grid = Image.new("RGB", (3 * width, 3 * height))
    for place, cell in enumerate(cells):
        grid.paste(cell, (place % 3 * width, place // 3 * height))
    uri = _uri(grid, "WEBP", VIDEO_BYTES)
    return Picture(uri=uri, width=grid.width, height=grid.height, seconds=round(seconds, 2))


def _shrink(pixels: Frames, scale: float) -> Image.Image:
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=1.5)


def _uri(drawn: Image.Image, codec: str, most_bytes: int) -> str:
    """Encode at the best quality that fits; the worst one is taken whether it fits or not."""
    data = b""
    for data in _encodings(drawn, codec):
        if len(data) <= most_bytes:
            break
    return f"data:image/{codec.lower()};base64,{base64.b64encode(data).decode()}"


def _encodings(drawn: Image.Image, codec: str) -> Iterator[bytes]:
    for quality in QUALITIES:
        buffer = io.BytesIO()
        drawn.save(buffer, codec, quality=quality)
        yield buffer.getvalue()
