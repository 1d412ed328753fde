"""How far a batch is from the same requests one by one, for every family, on tiny checkpoints on this CPU.

    python -m tests.bench.batching

Prints, for float32 and bfloat16, the share of bytes that differ and the largest difference, of four requests
(two prompts, two seeds each) in one batch and alone; 0 means bit-identical.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace

import numpy as np
import torch

from pipeline.generators.diffusion import DiffusionGenerator
from pipeline.media.frames import Frames
from pipeline.storage import open_store
from tests.contract.cases import CASES, LONG, SHORT, Case, frames


def main() -> None:
    """Print one line a family."""
    torch.set_num_threads(1)
    print("| checkpoint and pipeline | float32 | bfloat16 |\n|---|---|---|")
    for case in CASES:
        print(f"| {case} | {compared(case, 'float32')} | {compared(case, 'bfloat16')} |", flush=True)


def compared(case: Case, dtype: str) -> str:
    """Return how far a batch of four is from its requests alone."""
    together, alone = (rendered(case, dtype, batch) for batch in (4, 1))
    apart = np.abs(together.astype(np.int16) - alone)
    return f"{100 * (apart > 0).mean():.2g} %, at most {apart.max()}" if apart.any() else "identical"


def rendered(case: Case, dtype: str, batch: int) -> Frames:
    """Return all pixels of the four requests."""
    generator = DiffusionGenerator(replace(case.spec(dtype=dtype), batch=batch))
    with tempfile.TemporaryDirectory() as folder:
        generator.open(open_store(folder))
    asked = (case.request(text, seed) for text in (SHORT, LONG) for seed in (1, 2))
    made = np.stack(frames(list(generator.generate(asked))))
    generator.close()
    return made


if __name__ == "__main__":
    main()
