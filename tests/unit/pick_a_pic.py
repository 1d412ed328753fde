"""Files in the columns of Pick-a-Pic v2, with pictures that judges of quality can tell apart."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFilter

SCHEMA = pa.schema(
    [
        *((name, pa.binary()) for name in ("jpg_0", "jpg_1")),
        *((name, pa.float64()) for name in ("label_0", "label_1")),
        *((name, pa.string()) for name in ("caption", "image_0_uid", "image_1_uid", "model_0", "model_1")),
        *((name, pa.bool_()) for name in ("are_different", "has_label")),
        *(
            ("best_image_uid", pa.string()),
            ("ranking_id", pa.int64()),
            ("num_example_per_prompt", pa.int64()),
        ),
    ]
)


@cache
def encoded(seed: int, edge: int = 192) -> bytes:
    """Return discs on a plain ground: clear, blurred or noisy in turn, which judges of quality can tell."""
    made = np.random.default_rng(seed)
    picture = Image.new("RGB", (edge, edge), tuple(made.integers(60, 200, 3).tolist()))
    for _ in range(6):
        x, y, width = made.integers((0, 0, 20), (edge - 40, edge - 40, 60)).tolist()
        box = (x, y, x + width, y + width)
        ImageDraw.Draw(picture).ellipse(box, fill=tuple(made.integers(0, 255, 3).tolist()))
    if seed % 3 == 1:
        picture = picture.filter(ImageFilter.GaussianBlur(4))
    noise = made.normal(0, 30 if seed % 3 == 2 else 0, (edge, edge, 3))
    buffer = io.BytesIO()
    Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)).save(
        buffer, "JPEG", quality=95
    )
    return buffer.getvalue()


def row(number: int, **own: Any) -> dict[str, Any]:
    """Return a row of Pick-a-Pic v2: label_0 wins the even ones."""
    first = float(number % 2 == 0)
    usual = {
        "jpg_0": encoded(number % 12),
        "jpg_1": encoded((number + 1 + number // 12) % 12),
        "label_0": first,
        "label_1": 1 - first,
        "caption": f"cat {number}",
        "image_0_uid": f"left {number}",
        "image_1_uid": f"right {number}",
        "ranking_id": number,
        "has_label": True,
        "are_different": True,
    }
    return usual | own


def write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema = SCHEMA, group: int = 10) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, path, row_group_size=group, compression="none", write_page_checksum=True)
    return str(path)
