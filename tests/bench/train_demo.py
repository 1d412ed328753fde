"""`make train-demo`: shards of `make demo` to a tiny model, SFT and then Poly-DPO, on a CPU, with curves.

    python -m tests.bench.train_demo [FILE ...]    # files of infra/train/; default: demo-sft and demo-dpo

The model has the classes of Stable Diffusion 1.5 and random weights: it shows that the trainer works, and
what it writes. It says nothing about pictures.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import torch

from pipeline.cli import main as vipo
from tests.weights import checkpoints

FILES = ("infra/train/demo-sft.toml", "infra/train/demo-dpo.toml")
TINY = Path("runs/train-demo/tiny")


def main() -> int:
    torch.set_num_threads(1)  # its layers are so small that threads would only wait for each other
    if not TINY.exists():
        TINY.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(checkpoints(["sd15"]) / "sd15", TINY)
    for file in sys.argv[1:] or FILES:
        begun = time.monotonic()
        if status := vipo(["train", file]):
            return status
        print(f"{file}: {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
