"""An import that is killed goes on to the same bytes, and a model trains on it beside shards of a build."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset.imported import import_pairs
from pipeline.train.data import source, undecoded
from pipeline.train.loop import train
from pipeline.train.meters import read_log
from pipeline.train.settings import load
from pipeline.train.shards import Catalogue
from tests.e2e.world import Fault, tree, vipo
from tests.unit.pick_a_pic import encoded, row, write
from tests.unit.train_shards import picture, write_run
from tests.weights import checkpoints

pytestmark = pytest.mark.slow

KILLED = {
    "before a tar": {"method": "put_file", "suffix": ".tar", "nth": 2},
    "between tar and index": {"method": "put", "suffix": ".parquet", "nth": 2},
    "behind an index": {"method": "put", "suffix": ".parquet", "nth": 1, "when": "after"},
    "before the manifest": {"method": "replace", "prefix": "manifest.json"},
}

FILE = """
device = "cpu"
[model]
family = "sd15"
weights = "{weights}"
train = "full"
reference = "frozen"
precision = "fp32"
[data]
runs = ["{folder}/build", "{folder}/imported"]
sizes = [{{ width = 64, height = 64 }}, {{ width = 96, height = 64 }}]
categories = [{{ name = "alignment" }}, {{ name = "pick_a_pic", weight = 2.0 }}]
licence = "research"
held_out = 0.2
threads = 2
verify = true
[objective]
kind = "dpo"
kappa = 500.0
confidence = 1.0
[optim]
lr = 1e-4
batch = 4
micro_batch = 4
steps = 4
[output]
folder = "{folder}/out"
log = 1
checkpoint = 2
"""


@pytest.mark.parametrize("where", KILLED)
def test_a_killed_import_goes_on_to_the_same_bytes(where: str, tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        write(tmp_path / f"files/{name}.parquet", [row(n) for n in range(9 * number, 9 * number + 12)])
    import_pairs([str(tmp_path / "files")], str(tmp_path / "whole"))
    command = ["import", str(tmp_path / "files"), "--run", str(tmp_path / "run")]
    fault = Fault(folder=tmp_path / "fault", **KILLED[where])  # type: ignore[arg-type]
    assert vipo(*command, environment=fault.environment()).process.returncode == -9
    assert not (tmp_path / "run/manifest.json").exists()
    again = vipo(*command)
    assert again.process.returncode == 0, again.errors
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


def test_a_model_trains_on_both(tmp_path: Path) -> None:
    write_run(str(tmp_path / "build"), 10, sizes=((64, 64), (96, 64)))
    wide = {"jpg_0": picture(100, 150, 100).data, "jpg_1": picture(101, 75, 50).data}
    rows = [row(n, **({"label_0": 0.2, "label_1": 0.8} if n % 2 else wide)) for n in range(24)]
    import_pairs([write(tmp_path / "files/a.parquet", rows)], str(tmp_path / "imported"))
    path = tmp_path / "dpo.toml"
    path.write_text(FILE.format(weights=checkpoints(["sd15"]) / "sd15", folder=tmp_path))
    training = load(path)

    pairs = source(training.data, batch=4, seed=0)
    assert pairs.order.steps > 4
    seen: dict[str, set[int]] = {"alignment": set(), "pick_a_pic": set()}
    for batch in islice(pairs.batches(0, threads=1, decode=undecoded), pairs.order.steps):
        for item in batch.items:
            seen[item.sample.category].add(batch.size.width)
            if item.sample.category == "pick_a_pic":
                number = int(item.sample.prompt.split()[1])
                right = encoded((number + 1 + number // 12) % 12) if number % 2 else wide["jpg_0"]
                assert item.sample.winner == right
                assert item.sample.confidence == (0.8 if number % 2 else 1.0)
    assert seen == {"alignment": {64, 96}, "pick_a_pic": {64, 96}}, "each goes to the size of its shape"

    train(training)
    lines = read_log(tmp_path / "out")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert set(lines[0]["z"].values()) == {0.0}


def test_a_sample_has_the_shape_of_a_build_s(images_run: Path, tmp_path: Path) -> None:
    """Readers that infer columns must be able to read both."""
    import_pairs([write(tmp_path / "a.parquet", [row(0)])], str(tmp_path / "run"))
    ours, theirs = (
        dict(Catalogue([str(run)], licence="research").read(0).about)
        for run in (images_run, tmp_path / "run")
    )
    assert theirs.pop("imported")["row"] == 0
    assert shape(theirs) == shape(ours)


def shape(value: Any) -> Any:
    """The types of a value's leaves, by key; of a list, that of its first."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return [shape(value[0])] if isinstance(value, list) else type(value)
