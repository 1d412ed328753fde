"""Weights in a folder, in a bucket and on a hub: found, pinned, copied once, and refused in one line."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import Pin, Settings, data_root, load_profile
from pipeline.errors import ConfigError, CorruptError, StorageError, VipoError
from pipeline.storage import open_store
from pipeline.storage.s3 import S3Store
from pipeline.weights import Weights, check, locate, pin, pinned, read_pins, repositories, write_pins
from pipeline.weights.files import loadable
from tests.unit.hub_server import load

COMMIT, OTHER = "a1" * 20, "b2" * 20
SHARDS = [f"transformer/diffusion_pytorch_model-0000{part}-of-00002.safetensors" for part in (1, 2)]
MODEL: dict[str, dict[str, Any]] = {
    "model_index.json": {
        "_class_name": "FluxPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "image_encoder": [None, None],
        "layers": [1, 2],
    },
    "scheduler/scheduler_config.json": {},
    "tokenizer/config.json": {},
    "tokenizer/vocab.json": {},
    "transformer/config.json": {},
    "transformer/diffusion_pytorch_model.safetensors.index.json": {
        "metadata": {"total_size": 96},
        "weight_map": {f"block.{n}": name.partition("/")[2] for n, name in enumerate(SHARDS)},
    },
}
UNUSED = ("whole_model.safetensors", "transformer/model.fp16.safetensors", "pytorch_model.bin", "code.py")


def tensor(size: int, seed: int = 0) -> bytes:
    """Return a safetensors file of one tensor of ``size`` bytes."""
    header = json.dumps({"t": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes((seed + n) % 251 for n in range(size))


def write(root: Path, repo: str = "org/model") -> Path:
    """Write a model with files that it does not load beside those that it does."""
    folder = root / repo
    for name, value in MODEL.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    for n, name in enumerate((*SHARDS, *UNUSED)):
        (folder / name).write_bytes(tensor(48 + n, seed=n))
    return folder


def weights(root: str | None, revision: str | None = COMMIT, repo: str = "org/model", **more: Any) -> Weights:
    return Weights(repo=repo, disk=1, memory=1, root=root, revision=revision, **more)


def digest(root: str, repo: str = "org/model") -> str:
    (found,) = pin([repo], root)
    assert isinstance(found, Pin), found
    return found.revision


def refused(error: type[VipoError], call: Callable[..., object], *args: Any, **more: Any) -> str:
    """Return what the call said; it is one line."""
    with pytest.raises(error) as caught:
        call(*args, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "loads"),
    [
        ("model_index.json", True),
        ("transformer/diffusion_pytorch_model.safetensors", True),
        ("model-00001-of-00004.safetensors", True),
        ("tokenizer_2/spiece.model", True),
        ("tokenizer/merges.txt", True),
        ("chat_template.jinja", True),
        ("flux1-dev.safetensors", False),
        ("text_encoder/model.fp16-00001-of-00002.safetensors", False),
        ("unet/diffusion_pytorch_model.bin", False),
        ("modeling_model.py", False),
        ("original/consolidated.00.pth", False),
        (".cache/huggingface/trees/a.json", False),
    ],
)
def test_only_safetensors_and_what_configures_them_are_loaded(name: str, loads: bool) -> None:
    assert loadable(name) is loads


# A folder.


def test_a_folder_is_used_as_it_is(tmp_path: Path) -> None:
    folder = write(tmp_path)
    row = weights(str(tmp_path), digest(str(tmp_path)))
    check(row)
    assert locate(row) == folder


def test_the_digest_is_what_sha256sum_says(tmp_path: Path) -> None:
    folder = write(tmp_path)
    names = sorted(name for name in load(folder) if loadable(name))
    listed = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True).stdout
    whole = subprocess.run(["sha256sum"], input=listed, capture_output=True, check=True).stdout
    assert digest(str(tmp_path)) == f"sha256:{whole.split()[0].decode()}"


def test_files_that_no_model_loads_do_not_change_the_digest(tmp_path: Path) -> None:
    folder = write(tmp_path)
    before = digest(str(tmp_path))
    (folder / UNUSED[0]).unlink()
    assert digest(str(tmp_path)) == before
    (folder / "scheduler/scheduler_config.json").write_text("{} ")
    assert digest(str(tmp_path)) != before


def test_what_is_not_pinned_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    for call in (check, locate):
        said = refused(ConfigError, call, weights(str(tmp_path), None))
        assert said == "org/model: not pinned: run `vipo weights pin`"


def test_another_revision_than_the_pinned_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "hub" / "snapshots")
    snapshot = folder.parent / "snapshots" / OTHER
    snapshot.parent.mkdir()
    folder.rename(snapshot)
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "model").symlink_to(snapshot)
    check(weights(str(tmp_path), OTHER))
    said = refused(ConfigError, check, weights(str(tmp_path)))
    assert f"holds {OTHER}, pinned is {COMMIT}" in said
    assert "vipo weights pin" in said


def test_a_commit_is_not_believed_of_a_folder_that_records_none(tmp_path: Path) -> None:
    write(tmp_path)
    assert "does not record" in refused(ConfigError, locate, weights(str(tmp_path)))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "no safetensors files"),
        (lambda folder: (folder / SHARDS[1]).unlink(), f"lacks {SHARDS[1]}"),
        (lambda folder: shutil.rmtree(folder / "scheduler"), "lacks scheduler/"),
        (lambda folder: (folder / SHARDS[0]).write_bytes(b""), "no safetensors header"),
        (lambda folder: (folder / SHARDS[0]).write_bytes(b"\xff" * 99), "no safetensors header"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "not readable as JSON"),
    ],
)
def test_what_is_missing_is_named_before_any_worker_starts(
    tmp_path: Path, harm: Callable[[Path], object], said: str
) -> None:
    folder = write(tmp_path)
    row = weights(str(tmp_path), digest(str(tmp_path)))
    harm(folder)
    for call in (check, locate):
        assert said in refused(VipoError, call, row)


def test_a_component_without_weights_is_missed_unless_it_is_borrowed(tmp_path: Path) -> None:
    folder = write(tmp_path)
    index = {**MODEL["model_index.json"], "text_encoder_4": ["transformers", "LlamaForCausalLM"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "text_encoder_4").mkdir()
    (folder / "text_encoder_4" / "config.json").write_text("{}")
    row = weights(str(tmp_path), digest(str(tmp_path)))
    assert "lacks text_encoder_4/" in refused(CorruptError, check, row)
    lent = weights(str(tmp_path), repo="org/encoder")
    assert "org/encoder" in refused(StorageError, check, replace(row, borrowed=lent))
    write(tmp_path, "org/encoder")
    check(replace(row, borrowed=replace(lent, revision=digest(str(tmp_path), "org/encoder"))))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(cut=st.integers(min_value=0, max_value=len(tensor(48)) - 1))
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, cut: int) -> None:
    folder = write(tmp_path)
    row = weights(str(tmp_path), "sha256:" + "0" * 64)
    (folder / SHARDS[0]).write_bytes(tensor(48)[:cut])
    assert SHARDS[0] in refused(CorruptError, check, row)


# A bucket.


@pytest.fixture
def prefix(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an s3:// prefix that holds a model; copies of it go below ``tmp_path``."""
    monkeypatch.setenv("VIPO_CACHE", str(tmp_path / "cache"))
    root = f"{bucket}/{uuid.uuid4().hex}"
    upload(write(tmp_path / "made"), root)
    return root


def upload(folder: Path, root: str, repo: str = "org/model") -> None:
    store = open_store(f"{root}/{repo}")
    for name, data in load(folder).items():
        store.replace(name, data)


def copies(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache/weights/org/model").iterdir())


def test_a_prefix_is_copied_once_and_only_what_is_loaded(prefix: str, tmp_path: Path) -> None:
    row = weights(prefix, digest(prefix))
    assert row.revision == digest(str(tmp_path / "made"))
    check(row)
    assert not (tmp_path / "cache").exists()
    folder = locate(row)
    made = load(tmp_path / "made/org/model")
    assert load(folder) == {name: data for name, data in made.items() if loadable(name)}
    open_store(f"{prefix}/org/model").delete("model_index.json")
    assert locate(row) == folder


def test_other_bytes_of_the_same_length_are_refused_and_not_kept(prefix: str, tmp_path: Path) -> None:
    row = weights(prefix, digest(prefix))
    store = open_store(f"{prefix}/org/model")
    good = store.get(SHARDS[0])
    store.replace(SHARDS[0], good[:-1] + b"\xff")
    check(row)
    assert "digest is not the one pinned" in refused(CorruptError, locate, row)
    assert [name for name in copies(tmp_path) if not name.endswith(".lock")] == []
    store.replace(SHARDS[0], good)
    locate(row)


def test_a_prefix_with_a_file_cut_short_is_refused_by_the_driver(prefix: str) -> None:
    row = weights(prefix, digest(prefix))
    open_store(f"{prefix}/org/model").replace(SHARDS[1], tensor(49, 1)[:-5])
    assert "by its header" in refused(CorruptError, check, row)


def test_a_copy_that_does_not_fit_is_not_begun(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, usage = weights(prefix, digest(prefix)), shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    assert "VIPO_CACHE" in refused(StorageError, locate, row)


def _locate(row: Weights, log: Path, fatal: str | None) -> Path:
    """In a process of its own: note what is fetched; die at the file ``fatal``."""
    real = S3Store.open

    def noting(self: S3Store, key: str) -> Any:
        if key == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        with log.open("a") as file:
            file.write(f"{key}\n")
        return real(self, key)

    S3Store.open = noting  # type: ignore[method-assign]
    return locate(row)


def processes(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


@pytest.mark.slow
def test_a_copy_goes_on_where_a_killed_process_left_it(prefix: str, tmp_path: Path) -> None:
    row, log = weights(prefix, digest(prefix)), tmp_path / "log"
    process = multiprocessing.get_context("spawn").Process(target=_locate, args=(row, log, SHARDS[1]))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    folder = tmp_path / "cache/weights/org/model" / str(row.revision).replace(":", "-")
    assert not folder.exists()
    finished = set(load(folder.with_name(f"{folder.name}.part"))) - {f"{SHARDS[1]}.tmp"}
    with processes(1) as pool:
        assert pool.submit(_locate, row, tmp_path / "again", None).result() == folder
    fetched = (tmp_path / "again").read_text().split()
    assert SHARDS[1] in fetched
    assert not {name for name in finished if not name.endswith(".tmp")} & set(fetched)


@pytest.mark.slow
def test_of_many_processes_one_copies_and_the_others_wait(prefix: str, tmp_path: Path) -> None:
    row, log = weights(prefix, digest(prefix)), tmp_path / "log"
    with processes(3) as pool:
        found = {task.result() for task in [pool.submit(_locate, row, log, None) for _ in range(3)]}
    assert len(found) == 1
    fetched = log.read_text().split()
    assert sorted(fetched) == sorted(name for name in load(tmp_path / "made/org/model") if loadable(name))


# Pins.


def test_settings_give_a_row_its_revision_and_its_place() -> None:
    profile = load_profile(data_root() / "infra/profiles/laptop.toml")
    build = Settings(
        profile=replace(profile, weights="s3://bucket/weights"),
        categories=(),
        pins=(Pin(repo="org/model", revision=COMMIT), Pin(repo="org/encoder", revision=OTHER)),
    )
    row = weights(None, None, borrowed=weights(None, None, "org/encoder"))
    found = pinned(row, build)
    assert found is not None
    assert found.borrowed is not None
    assert (found.revision, found.root) == (COMMIT, "s3://bucket/weights")
    assert (found.borrowed.revision, found.borrowed.root) == (OTHER, "s3://bucket/weights")
    assert pinned(replace(row, repo="org/other"), build) == replace(found, repo="org/other", revision=None), (
        "what no pin names stays unpinned"
    )
    assert pinned(None, build) is None
    assert repositories([row, None, row]) == ["org/encoder", "org/model"]


def test_pins_say_why_a_repository_has_none(tmp_path: Path) -> None:
    write(tmp_path)
    good, bad = pin(["org/model", "org/other"], str(tmp_path))
    assert isinstance(good, Pin)
    assert isinstance(bad, StorageError)
    assert "org/other: no safetensors files" in str(bad)


names = st.from_regex(r"[A-Za-z0-9._-]{1,20}/[A-Za-z0-9._-]{1,20}", fullmatch=True)
revisions = st.from_regex(r"[0-9a-f]{40}|sha256:[0-9a-f]{64}", fullmatch=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    first=st.dictionaries(names, revisions),
    second=st.dictionaries(names, revisions),
    source=st.text(st.characters(codec="utf-8"), max_size=40),
)
def test_pins_come_back_as_they_went_and_new_ones_replace_old(
    tmp_path: Path, first: dict[str, str], second: dict[str, str], source: str
) -> None:
    path = tmp_path / "pins.toml"
    path.unlink(missing_ok=True)
    for given_pins in (first, second):
        write_pins(path, [Pin(repo=name, revision=found) for name, found in given_pins.items()], source)
    assert {entry.repo: entry.revision for entry in read_pins(path)} == first | second
    assert [path.name for path in tmp_path.iterdir()] == ["pins.toml"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[pin]", "cannot be read as pins"),
        ('[[pin]]\nrepo = "a/b"\nrevision = "main"\nsource = ""\n', "is no pin"),
        ('[[pin]]\nrepo = "a/b"\n', "is no pin"),
        (f'[pin]\nrepo = "a/b"\nrevision = "{COMMIT}"\nsource = 3\n', "is no pin"),
        ("pin = 3\n", "is no pin"),
        (f'[[pin]]\nrepo = "a/b"\nrevision = "{COMMIT}"\nsource = ""\n' * 2, "a/b is pinned twice"),
    ],
)
def test_a_mistake_in_a_file_of_pins_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "pins.toml"
    path.write_text(text)
    assert said in refused(ConfigError, read_pins, path)
