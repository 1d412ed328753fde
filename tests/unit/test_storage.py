"""Every store keeps the same promises: one suite, run over a folder and over a real S3 server."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, StorageError
from pipeline.storage import Store, open_store, read_uri, s3

KINDS = ("local", "s3")


@pytest.fixture
def addresses(bucket: str, tmp_path: Path) -> dict[str, str]:
    return {"local": str(tmp_path / "store"), "s3": f"{bucket}/{uuid.uuid4().hex}"}


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, addresses: dict[str, str]) -> Store:
    return open_store(addresses[request.param])


def keys(store: Store, prefix: str = "") -> list[str]:
    return [entry.key for entry in store.list(prefix)]


def test_put_creates_once(store: Store) -> None:
    assert store.put("part/one", b"first")
    assert not store.put("part/one", b"second")
    assert store.get("part/one") == b"first"


def test_replace_writes_in_any_case(store: Store) -> None:
    store.replace("about.json", b"first")
    store.replace("about.json", b"second, longer")
    assert store.get("about.json") == b"second, longer"
    assert not store.put("about.json", b"third")


def test_of_many_creators_one_wins_and_nobody_reads_a_mixture(store: Store) -> None:
    contents = [bytes([number]) * 100_000 for number in range(8)]
    stores = [open_store(store.uri) for _ in contents]
    with ThreadPoolExecutor(len(contents)) as threads:
        won = list(threads.map(lambda each, data: each.put("race", data), stores, contents))
    assert won.count(True) == 1
    assert store.get("race") == contents[won.index(True)]


@pytest.mark.parametrize("size", [0, 1, 5 << 20, (5 << 20) + 1, (12 << 20) + 345])
def test_put_file_stores_files_of_any_size_whole(
    store: Store, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART", 5 << 20)
    path = tmp_path / "shard.tar"
    path.write_bytes(hashlib.shake_128(b"shard").digest(1 << 16) * (size >> 16) + b"x" * (size & 0xFFFF))
    assert store.put_file("shards/a.tar", path)
    assert store.size("shards/a.tar") == size
    assert hashlib.sha256(store.get("shards/a.tar")).digest() == hashlib.sha256(path.read_bytes()).digest()
    path.write_bytes(b"other" * (size // 5 + 1))
    assert not store.put_file("shards/a.tar", path)
    assert store.size("shards/a.tar") == size


def test_an_upload_in_parts_that_comes_second_leaves_nothing_behind(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART", 5 << 20)
    folder = uuid.uuid4().hex
    store = open_store(f"{bucket}/{folder}")
    path = tmp_path / "large"
    path.write_bytes(bytes(6 << 20))
    assert store.put("large", b"was first")
    assert not store.put_file("large", path)
    assert store.get("large") == b"was first"
    # All servers of a test process share what they store: other tests break off uploads on purpose.
    uploads = boto3.client("s3").list_multipart_uploads(Bucket="vipo", Prefix=folder)
    assert "Uploads" not in uploads


DATA = hashlib.shake_128(b"ranges").digest(300_000)


@pytest.fixture(scope="module", params=KINDS)
def reader(request: pytest.FixtureRequest, bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Store:
    uri = f"{bucket}/ranges" if request.param == "s3" else str(tmp_path_factory.mktemp("ranges"))
    store = open_store(uri)
    store.put("data", DATA)
    return store


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 310_000), st.integers(0, 310_000)), min_size=1, max_size=4))
def test_any_range_reads_as_it_would_from_a_file(reader: Store, ranges: list[tuple[int, int]]) -> None:
    with reader.open("data") as file:
        for start, count in ranges:
            assert file.seek(start) == start
            assert file.read(count) == DATA[start : start + count]
            assert file.tell() == max(start, min(start + count, len(DATA)))


@pytest.mark.parametrize(("offset", "whence"), [(7, io.SEEK_SET), (-7, io.SEEK_END), (0, io.SEEK_END)])
def test_seeking_is_from_the_start_and_from_the_end(reader: Store, offset: int, whence: int) -> None:
    expected = io.BytesIO(DATA)
    with reader.open("data") as file:
        assert file.seek(offset, whence) == expected.seek(offset, whence)
        assert file.read() == expected.read()


NAMES = ("a.b/c", "a/b", "a/c/d", "a0", "ab/c", "b", "é/x", "part/000002.parquet", "part/000010.parquet")


@pytest.fixture
def filled(addresses: dict[str, str]) -> dict[str, Store]:
    stores = {kind: open_store(uri) for kind, uri in addresses.items()}
    for store in stores.values():
        for name in reversed(NAMES):
            store.put(name, name.encode())
    return stores


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "part/", "part/00000", "nothing/", "a/c/d", "z"])
def test_every_store_lists_the_same_keys_in_the_same_order(filled: dict[str, Store], prefix: str) -> None:
    listed = {kind: [(item.key, item.size) for item in store.list(prefix)] for kind, store in filled.items()}
    assert listed["local"] == listed["s3"]
    found = [key for key, _ in listed["local"]]
    assert found == sorted(found, key=str.encode)
    assert all(key.startswith(prefix) for key in found)


@pytest.mark.slow
def test_more_keys_than_a_page_holds_are_listed(store: Store) -> None:
    count = 1_003  # S3 gives 1,000 at a time
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: store.put(f"many/{number:05d}", b""), range(count)))
    assert keys(store, "many/") == [f"many/{number:05d}" for number in range(count)]


def test_unfinished_files_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".tmp").mkdir()
    (tmp_path / ".tmp" / "half").write_bytes(b"ha")
    assert keys(open_store(str(tmp_path))) == []


def test_a_missing_key_has_no_size_and_cannot_be_read(store: Store) -> None:
    assert store.size("not/there") is None
    for read in (store.get, store.open):
        with pytest.raises(StorageError, match="not/there") as caught:
            read("not/there")
        assert_says_little(caught.value)


def test_a_deleted_key_is_free_again(store: Store) -> None:
    store.put("part/one", b"first")
    store.put("part/two", b"stays")
    for _ in range(2):  # what is gone already is no error
        store.delete("part/one")
    assert keys(store) == ["part/two"]
    assert store.put("part/one", b"second")


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "/etc/passwd"])
def test_a_key_that_leaves_the_store_is_refused(store: Store, key: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    calls: list[Callable[[], Any]] = [
        lambda: store.put(key, b"x"),
        lambda: store.replace(key, b"x"),
        lambda: store.put_file(key, file),
        lambda: store.delete(key),
        lambda: store.get(key),
        lambda: store.open(key),
        lambda: store.size(key),
    ]
    for call in calls:
        with pytest.raises(StorageError, match="leaves the store"):
            call()
    assert not list(tmp_path.rglob("outside"))


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    del bucket
    store = open_store("s3://no-such-bucket/run")
    for call in (lambda: store.put("a", b""), lambda: list(store.list(""))):
        with pytest.raises(StorageError, match=r"s3://no-such-bucket/run/.*NoSuchBucket") as caught:
            call()
        assert_says_little(caught.value)


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(s3, "PAUSES", ())
    store = open_store(f"{bucket}/run")
    with pytest.raises(StorageError, match="check network and credentials") as caught:
        store.get("a")
    assert_says_little(caught.value)


def test_without_credentials_the_message_says_so(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(StorageError, match="NoCredentialsError") as caught:
        open_store(f"{bucket}/run").get("a")
    assert_says_little(caught.value)


def assert_says_little(error: StorageError) -> None:
    assert "\n" not in str(error)
    assert os.environ.get("AWS_SECRET_ACCESS_KEY", "nothing") not in str(error)


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(ConfigError, match="gs:// is not a known kind of store"):
        open_store("gs://bucket/run")


def test_one_file_is_read_by_its_address(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("pools/mine.jsonl", b"{}")
    assert read_uri(f"{store.uri}/pools/mine.jsonl") == b"{}"
    (tmp_path / "here.jsonl").write_bytes(b"[]")
    monkeypatch.chdir(tmp_path)
    assert read_uri("here.jsonl") == b"[]"
    assert read_uri((tmp_path / "here.jsonl").as_uri()) == b"[]"


def test_a_file_in_the_place_of_a_folder_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"")
    store = open_store(str(tmp_path))
    for write in (store.put, store.replace):
        with pytest.raises(StorageError, match=r"cannot write part/one .*run the same command again"):
            write("part/one", b"x")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 256 KiB."""
    mounted = tmp_path / "tiny"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tiny", str(mounted)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(tiny_disk: Path, tmp_path: Path) -> None:
    store = open_store(str(tiny_disk))
    large = tmp_path / "large"
    large.write_bytes(bytes(1 << 20))
    calls: list[Callable[[], Any]] = [
        lambda: store.put("large", large.read_bytes()),
        lambda: store.put_file("large", large),
        lambda: store.replace("large", large.read_bytes()),
    ]
    for call in calls:
        with pytest.raises(StorageError, match=r"No space left on device.*free space"):
            call()
    assert store.size("large") is None
    assert [path for path in tiny_disk.rglob("*") if path.is_file()] == []
    assert store.put("small", b"fits")
