"""Tiny checkpoints of the real diffusers pipelines, built here from random weights: no download, no GPU.

Classes, files, strides and channels of latents are the real ones, so a request for 1024x1024 or 1280x720
goes through the real shapes; only widths and depths are small. A build is the same to the byte each time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from pipeline.config import Pin
from pipeline.generators.base import GeneratorSpec
from pipeline.weights import Weights, pin

PIPELINES = {
    "FluxPipeline": "flux",
    "Flux2Pipeline": "flux2",
    "Flux2KleinPipeline": "flux2_klein",
    "QwenImagePipeline": "qwenimage",
    "HiDreamImagePipeline": "hidream",
    "StableDiffusionPipeline": "sd15",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "SanaPipeline": "sana",
    "PixArtSigmaPipeline": "pixart_sigma",
    "ZImagePipeline": "zimage",
    "HunyuanImagePipeline": "hunyuan_image",
    "ChromaPipeline": "chroma",
    "Krea2Pipeline": "krea2",
    "LTXPipeline": "ltx",
    "LTXImageToVideoPipeline": "ltx",
    "HunyuanVideoPipeline": "hunyuan_video",
}
"""Checkpoint of each pipeline class; beside them stands ``llama``, the text encoder that HiDream borrows."""

WAN = {"TI2V-5B": "wan22_5b", "I2V-A14B": "wan_i2v", "T2V-A14B": "wan22", "Wan2.1-T2V": "wan"}
"""Wan's two classes have several shapes: checkpoint by what a repository's name says."""


def build(out: Path, names: Sequence[str]) -> None:
    """Write the checkpoint of each name to ``out/name``, unless it is there."""
    from transformers.utils.logging import disable_progress_bar

    from tests.weights.image import IMAGE
    from tests.weights.video import VIDEO

    disable_progress_bar()
    for name in names:
        if not (out / name).exists():
            with tempfile.TemporaryDirectory(dir=out) as scratch:
                ({**IMAGE, **VIDEO}[name])().save_pretrained(Path(scratch) / name, safe_serialization=True)
                (Path(scratch) / name).rename(out / name)


def checkpoints(names: Sequence[str]) -> Path:
    """Return the folder that holds the checkpoint of each name under that name; do not write to it.

    Processes share it: the folder is named by what the bytes depend on (this package, its libraries), and
    a lock lets one of them build while the others wait.
    """
    root = Path(tempfile.gettempdir()) / f"vipo-weights-{os.getuid()}-{_inputs()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if all((root / name).exists() for name in names):
        return root
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build(root, names)
    return root


def tiny(name: str) -> Weights:
    """Return the weights of one checkpoint, built and pinned."""
    names = [name, "llama"] if name == "hidream" else [name]
    root = checkpoints(names)
    found = [
        Weights(repo=repo, disk=0.0, memory=0.0, root=str(root), revision=_revision(repo, root))
        for repo in names
    ]
    return replace(found[0], borrowed=found[1] if found[1:] else None)


def stand_ins(out: Path, rows: Iterable[GeneratorSpec]) -> None:
    """Put a tiny checkpoint at ``out``/repository for all weights of ``rows``, as a profile's ``weights``."""
    for row in rows:
        if row.weights is None:
            continue
        places = {row.weights.repo: of_row(row)}
        if row.weights.borrowed:
            places[row.weights.borrowed.repo] = "llama"
        for repo, name in places.items():
            if not (out / repo).exists():
                shutil.copytree(checkpoints([name]) / name, out / repo)


def of_row(row: GeneratorSpec) -> str:
    """Return the checkpoint that has the class and the shape of a row's."""
    assert row.weights, row.name
    shapes = [name for part, name in WAN.items() if part in row.weights.repo]
    return shapes[0] if shapes else PIPELINES[str(row.options["pipeline"])]


def _revision(repo: str, root: Path) -> str:
    (made,) = pin([repo], str(root))
    assert isinstance(made, Pin), made
    return made.revision


def _inputs() -> str:
    """Return a hash of this package's source and of the versions that a checkpoint's bytes depend on."""
    source = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        source.update(file.read_bytes())
    for library in ("diffusers", "safetensors", "tokenizers", "torch", "transformers"):
        source.update(f"{library} {version(library)}".encode())
    return source.hexdigest()[:16]
