"""What a checkpoint may hold, and that every row of the table loads and runs one of its class."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import Size
from pipeline.errors import VipoError
from pipeline.generators.base import GeneratorSpec
from pipeline.generators.diffusion import DiffusionGenerator
from pipeline.generators.table import GENERATORS
from pipeline.storage import Store, open_store
from tests.contract.cases import (
    FLUX,
    LONG,
    Case,
    altered,
    frames,
    one_thread,
    repinned,
)
from tests.e2e.world import tree
from tests.weights import checkpoints, of_row, tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")

ROWS = [row for row in GENERATORS.values() if row.family == "diffusion"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("run")))


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_of_the_table_renders_as_it_stands(row: GeneratorSpec, store: Store) -> None:
    spec = replace(row, weights=tiny(of_row(row)), frames=min(row.frames, 9))
    short = replace(spec, options={**spec.options, "steps": 2})
    generator = DiffusionGenerator(short)
    generator.open(store)
    size = spec.size(Size(width=160, height=96, fps=spec.fps))
    like = Case(checkpoint=of_row(row), pipeline="", from_image=row.starts_from == "image", size=size)
    (made,) = frames(generator.generate([like.request(LONG, 1)]))
    assert made.shape[0] == size.frames
    generator.close()


@pytest.mark.parametrize("component", ["transformer", "text_encoder_2", "vae"])
def test_a_pickle_is_never_opened(component: str, store: Store, tmp_path: Path) -> None:
    spec, harm = altered(FLUX, tmp_path), tmp_path / "harm"
    (weights,) = (tmp_path / "flux" / component).glob("*.safetensors")
    name = "pytorch_model.bin" if weights.name.startswith("model") else "diffusion_pytorch_model.bin"
    torch.save(Harm(harm), weights.with_name(name))
    weights.unlink()
    with pytest.raises(VipoError) as error:
        DiffusionGenerator(repinned(spec)).open(store)
    assert component in str(error.value)
    assert "\n" not in str(error.value)
    assert not harm.exists()


def test_code_in_a_checkpoint_is_never_run(store: Store, tmp_path: Path) -> None:
    spec, harm = altered(FLUX, tmp_path), tmp_path / "harm"
    code = f"import pathlib; pathlib.Path({str(harm)!r}).touch()\nclass Harm: pass\n"
    for place in ("harm.py", "transformer/harm.py", "pipeline.py"):
        (tmp_path / "flux" / place).write_text(code)
    index = tmp_path / "flux" / "model_index.json"
    named = json.loads(index.read_bytes())
    for change in ({"transformer": ["harm", "Harm"]}, {"_class_name": ["pipeline", "Harm"]}):
        index.write_text(json.dumps({**named, **change}))
        with pytest.raises(VipoError) as error:
            DiffusionGenerator(repinned(spec)).open(store)
        assert "\n" not in str(error.value)
    assert not harm.exists()


def test_the_checkpoint_of_another_pipeline_is_refused(store: Store) -> None:
    spec = replace(FLUX.spec(), weights=tiny("qwenimage"))
    with pytest.raises(VipoError, match="QwenImagePipeline"):
        DiffusionGenerator(spec).open(store)


@pytest.mark.slow
def test_another_process_builds_the_same_bytes(tmp_path: Path) -> None:
    names = ("hidream", "llama", "qwenimage", "wan22_5b")
    code = f"import pathlib, tests.weights as w; w.build(pathlib.Path({str(tmp_path)!r}), {names})"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
    for name in names:
        assert tree(tmp_path / name) == tree(checkpoints([name]) / name)


class Harm:
    """What a pickle may do: make a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))
