"""Importing a pool from S3 and from the hub, and by the command line."""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from email.message import Message
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto import mock_aws

from pipeline.cli import prompts as commands
from pipeline.errors import ConfigError, StorageError
from pipeline.pools.imports.sources import files, read
from tests.unit.hub_server import HubServer, Repo
from tests.unit.test_pools_import import CORGI, FIRST, SECOND, imported, jsonl

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_pool_goes_from_s3_to_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="pools")
        for name, text in (("b", SECOND), ("a", FIRST)):
            source = jsonl(tmp_path / f"{name}.jsonl", {"text": text})
            client.upload_file(str(source), "pools", f"raw/{name}.jsonl")
        made = imported("s3://pools/raw", out="s3://pools/made/pool.parquet")
        payload = client.get_object(Bucket="pools", Key="made/pool.parquet")["Body"].read()
    assert hashlib.sha256(payload).hexdigest() == made.sha256
    assert [row["text"] for row in pq.read_table(pa.BufferReader(payload)).to_pylist()] == [FIRST, SECOND]
    assert 'uri = "s3://pools/made/pool.parquet"' in made.toml()


class DatasetHub(HubServer):
    """The same server; of datasets the addresses have one word more."""

    def answer(self, path: str, headers: Message) -> tuple[int, dict[str, str], bytes]:
        return super().answer(path.replace("/datasets/", "/", 1), headers)


def _texts(source: str) -> list[Any]:
    return [
        row["text"] for file in files(source) for row in read(file, ("text",), ()) if isinstance(row, dict)
    ]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DatasetHub, ProcessPoolExecutor]]:
    """A process whose client knows no other hub: it reads its settings once."""
    server = DatasetHub()
    text = json.dumps({"text": FIRST}).encode()
    server.repos = {
        "org/prompts": Repo(commit=COMMIT, files={"data/a.jsonl": text}),
        "org/gated": Repo(commit=COMMIT, files={"a.jsonl": text}, token="secret"),  # noqa: S106
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.start())
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        patch.delenv("HF_TOKEN", raising=False)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield server, pool
    server.stop()


@pytest.mark.slow
def test_a_file_of_a_dataset_on_the_hub_is_read_at_a_commit(
    hub: tuple[DatasetHub, ProcessPoolExecutor],
) -> None:
    server, pool = hub

    def texts(source: str) -> list[Any]:
        return pool.submit(_texts, f"hf://datasets/{source}").result()

    assert texts(f"org/prompts@{COMMIT}/data/a.jsonl") == [FIRST]
    with pytest.raises(ConfigError, match=r"'main' may change: give the commit"):
        texts("org/prompts@main/data/a.jsonl")
    with pytest.raises(ConfigError, match="no such file at this commit"):
        texts(f"org/prompts@{COMMIT}/b.jsonl")
    with pytest.raises(ConfigError, match="no such dataset on the hub, or private"):
        texts(f"org/nothing@{COMMIT}/a.jsonl")
    with pytest.raises(ConfigError, match="gated: accept its terms"):
        texts(f"org/gated@{COMMIT}/a.jsonl")
    with pytest.raises(ConfigError, match="hf://datasets/ORG/NAME@COMMIT/FILE"):
        texts("org/prompts")
    server.broken = 400
    with pytest.raises(StorageError, match=r"cannot be had from the hub"):
        texts(f"org/prompts@{COMMIT}/c.jsonl")


def run(*words: str) -> None:
    parser = argparse.ArgumentParser()
    commands.add(parser.add_subparsers(required=True))
    given = parser.parse_args(["prompts", *words])
    given.command(given)


def test_the_commands_print_counts_the_lines_to_paste_and_what_is_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = jsonl(tmp_path / "raw.jsonl", {"caption": FIRST}, {"caption": CORGI}, {"caption": ""})
    benchmark = jsonl(tmp_path / "held.jsonl", {"text": CORGI})
    terms = ["--licence", "CC0-1.0", "--source", "mine", "--similar", "0", "--column", "text=caption"]
    out = str(tmp_path / "pool.parquet")
    run("import", str(raw), "--format", "plain", "--out", out, *terms, "--hold-out", str(benchmark))
    printed = capsys.readouterr().out
    for said in ("held_out", "too_short", "[pool]", f'uri = "{out}"', "sha256 = ", 'licence = "CC0-1.0"'):
        assert said in printed
    run("check", out, "--hold-out", str(benchmark))
    assert "none of 1 prompts is one of the 1 held out" in capsys.readouterr().out
    pool = jsonl(tmp_path / "pool.jsonl", {"text": CORGI})
    with pytest.raises(ConfigError, match="1 of 1 prompts are held out: import it with --hold-out"):
        run("check", str(pool), "--hold-out", str(benchmark))
    assert "exact" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--column caption: give OURS=THEIRS"):
        run("import", str(raw), "--format", "plain", "--out", out, *terms, "--column", "caption")
