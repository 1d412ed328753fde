"""Weights on a hub: a server on this machine that answers as the hub does, asked by the real client."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Pin
from pipeline.errors import ConfigError, CorruptError, StorageError
from pipeline.storage import open_store
from pipeline.weights import Weights, check, locate, pin
from pipeline.weights.files import loadable
from tests.unit.hub_server import HubServer, Repo, load
from tests.unit.test_weights import COMMIT, OTHER, SHARDS, processes, refused, tensor, weights, write

TOKEN = "hf_a-secret-that-no-message-may-show"  # noqa: S105


@dataclass
class Client:
    """A process whose huggingface_hub knows no hub but ``server``: it reads its settings once."""

    server: HubServer
    pool: ProcessPoolExecutor

    def __call__(self, call: Callable[..., Any], *args: Any, token: str | None = None) -> Any:
        return self.pool.submit(_with_token, token, call, *args).result()

    def asked(self, kind: str) -> list[str]:
        """Return what was asked of the server since the last time, if it begins with ``kind``."""
        asked = [line for line in self.server.log if line.startswith(kind)]
        self.server.log.clear()
        return asked


def _with_token(token: str | None, call: Callable[..., Any], *args: Any) -> Any:
    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token
    result = call(*args)
    return list(result) if isinstance(result, Iterator) else result


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    server = HubServer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.start())
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        patch.delenv("HF_TOKEN", raising=False)
        with processes(1) as pool:
            yield Client(server, pool)
    server.stop()


@pytest.fixture
def row(client: Client, tmp_path: Path) -> Iterator[Weights]:
    """Return a row whose repository no other test has loaded."""
    name = f"org/{uuid.uuid4().hex}"
    client.server.repos[name] = Repo(commit=COMMIT, files=load(write(tmp_path / "made", name)))
    client.server.log.clear()
    yield weights(None, COMMIT, name)
    client.server.broken = None


def test_the_driver_asks_and_downloads_nothing(client: Client, row: Weights) -> None:
    client(check, row)
    assert client.asked(f"GET /{row.repo}") == []


def test_a_worker_downloads_what_it_loads_and_only_once(client: Client, row: Weights) -> None:
    folder = client(locate, row)
    wanted = {name: data for name, data in client.server.repos[row.repo].files.items() if loadable(name)}
    assert load(folder) == wanted
    client.server.broken = 503
    client.asked("")
    assert client(locate, row) == folder
    client(check, row)
    assert client.asked(f"GET /{row.repo}") == []


def test_the_pin_is_the_head_of_the_repository(client: Client, row: Weights) -> None:
    found, missing = client(pin, [row.repo, "org/unheard-of"], None)
    assert found == Pin(repo=row.repo, revision=COMMIT)
    assert isinstance(missing, ConfigError)
    assert "org/unheard-of: not on the hub, or private" in str(missing)


@pytest.mark.parametrize("token", [None, "hf_another"])
@pytest.mark.parametrize("known", [True, False])
def test_a_gated_model_says_what_to_do(client: Client, row: Weights, token: str | None, known: bool) -> None:
    client.server.repos[row.repo].token = TOKEN
    gated = weights(None, COMMIT, row.repo, gated=known)
    for call in (check, locate):
        said = refused(ConfigError, client, call, gated, token=token)
        assert said.startswith(f"{row.repo}: gated: accept its licence on the hub and set HF_TOKEN")
        assert token is None or token not in said
    client(check, gated, token=TOKEN)
    client(locate, gated, token=TOKEN)


def test_a_private_or_missing_repository_is_named(client: Client, row: Weights) -> None:
    client.server.repos[row.repo].private = True
    for token in (None, "hf_another"):
        for call in (check, locate):
            said = refused(ConfigError, client, call, row, token=token)
            assert said.startswith(f"{row.repo}: not on the hub, or private")


def test_a_revision_that_is_not_there_is_named(client: Client, row: Weights) -> None:
    other = weights(None, OTHER, row.repo)
    for call in (check, locate):
        said = refused(ConfigError, client, call, other)
        assert said == f"{row.repo}: the hub has no revision {OTHER}: run `vipo weights pin`"


def test_a_repository_without_safetensors_is_refused(client: Client, row: Weights) -> None:
    files = client.server.repos[row.repo].files
    for name in [name for name in files if name.endswith(".safetensors") and loadable(name)]:
        files[name.replace(".safetensors", ".bin")] = files.pop(name)
    assert "no safetensors at" in refused(ConfigError, client, check, row)
    assert "no safetensors" in refused(StorageError, client, locate, row)


@pytest.mark.parametrize(("call", "status"), [(check, 503), (locate, 403)])  # 503: a download is tried again
def test_a_hub_that_fails_is_told_from_a_model_that_is_missing(
    client: Client, row: Weights, call: Callable[[Weights], object], status: int
) -> None:
    client.server.broken = status
    said = refused(StorageError, client, call, row)
    assert said.startswith(f"{row.repo}: cannot be had from the hub")
    assert "HF_HUB_OFFLINE" in said


def test_a_digest_cannot_be_had_from_the_hub(client: Client, row: Weights) -> None:
    local = weights(None, "sha256:" + "0" * 64, row.repo)
    for call in (check, locate):
        assert "set its key weights" in refused(ConfigError, client, call, local)


def test_a_file_that_the_hub_serves_cut_short_is_refused(client: Client, row: Weights) -> None:
    client.server.repos[row.repo].files[SHARDS[0]] = tensor(48)[:-3]
    assert "by its header" in refused(CorruptError, client, locate, row)


def _downloaded(repo: str, folder: str) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(repo, revision=COMMIT, local_dir=folder)


@pytest.fixture
def folder(client: Client, row: Weights, tmp_path: Path) -> Path:
    """Return what `hf download --local-dir` makes of the repository."""
    client(_downloaded, row.repo, str(tmp_path / "here" / row.repo))
    return tmp_path / "here" / row.repo


def test_a_downloaded_folder_knows_its_commit(folder: Path, row: Weights, tmp_path: Path) -> None:
    root = str(tmp_path / "here")
    assert list(pin([row.repo], root)) == [Pin(repo=row.repo, revision=COMMIT)]
    assert locate(weights(root, COMMIT, row.repo)) == folder
    said = refused(ConfigError, check, weights(root, OTHER, row.repo))
    assert f"holds {COMMIT}, pinned is {OTHER}" in said


def test_files_of_two_commits_are_refused(folder: Path, row: Weights, tmp_path: Path) -> None:
    record = folder / f".cache/huggingface/download/{SHARDS[0]}.metadata"
    record.write_text(record.read_text().replace(COMMIT, OTHER))
    said = refused(CorruptError, check, weights(str(tmp_path / "here"), COMMIT, row.repo))
    assert "files of 2 commits" in said


def test_a_copied_prefix_is_compared_with_what_the_hub_recorded(
    folder: Path, row: Weights, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIPO_CACHE", str(tmp_path / "cache"))
    root = f"{bucket}/{uuid.uuid4().hex}"
    store = open_store(f"{root}/{row.repo}")
    for name, data in load(folder).items():
        store.replace(name, data)
    there = weights(root, COMMIT, row.repo)
    check(there)
    for name in (SHARDS[0], "tokenizer/vocab.json"):
        good = store.get(name)
        store.replace(name, good[:-1] + b" ")
        said = refused(CorruptError, locate, there)
        assert f"hash of {name} is not the one recorded" in said
        store.replace(name, good)
    assert load(locate(there)).keys() == {name for name in load(folder) if loadable(name)}
