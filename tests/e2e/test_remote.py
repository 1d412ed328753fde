"""Paid services behind one generator: bought once whatever happens, never past the budget, no key shown."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import Size
from pipeline.errors import ItemError, WorkerError
from pipeline.generators.base import GeneratorSpec, Rendered, Request
from pipeline.generators.remote import RemoteGenerator
from pipeline.generators.remote.notes import Notes, spent
from pipeline.generators.remote.wire import Pace
from pipeline.records import Checks, Prompt
from pipeline.storage import open_store
from tests.e2e.remote_api import KEY, RemoteApi
from tests.e2e.world import Fault

pytestmark = pytest.mark.slow

VEO = GeneratorSpec(
    name="veo",
    family="remote",
    modality="video",
    licence="terms",
    licence_profile="research",
    batch=4,
    frames=96,
    fps=24,
    dollars=1.6,
    options={"service": "gemini", "model": "veo-3.0-generate-001", "resolution": "720p"},
)
SEEDANCE = replace(
    VEO,
    name="seedance",
    frames=49,
    dollars=0.1,
    options={"service": "ark", "model": "seedance-1-0-pro-250528", "resolution": "480p"},
)
ROWS = {"veo": VEO, "seedance": SEEDANCE}
SIZES = {"veo": Size(width=1280, height=720), "seedance": Size(width=864, height=480)}
FAST = Pace(attempts=6, pause=0.01, longest=0.05, poll=0.01, slowest=0.05, deadline=60, window=0.5)
RICH = 1000.0

Result = Rendered | ItemError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    @contextmanager
    def start(key: str = KEY, **behaviour: Any) -> Iterator[RemoteApi]:
        with RemoteApi(**behaviour) as api:
            for name, value in api.environment(key).items():
                monkeypatch.setenv(name, value)
            yield api

    return start


def asked(number: int, spec: GeneratorSpec, text: str = "a red fox", source: Any = None) -> Request:
    prompt = Prompt(
        id=f"{number:032x}",
        root_id=f"{number:032x}",
        category="motion",
        bucket=0,
        text=text,
        subject="fox",
        style="",
        checks=Checks(),
        source="test",
        licence="CC0-1.0",
    )
    size = spec.size(SIZES[spec.name])
    return Request(id=f"{number:032x}", prompt=prompt, seed=(7 << 40) + number, size=size, source=source)


def generated(
    spec: GeneratorSpec, run: Path, requests: list[Request], budget: float = RICH, pace: Pace = FAST
) -> list[Result]:
    generator = RemoteGenerator(spec, budget, pace)
    generator.open(open_store(str(run)))
    try:
        return list(generator.generate(iter(requests)))
    finally:
        generator.close()


def work(name: str, run: str, count: str) -> None:
    """Be a worker process: print what became of each request."""
    spec = ROWS[name]
    for result in generated(spec, Path(run), [asked(number, spec) for number in range(int(count))]):
        print("made" if isinstance(result, Rendered) else result)


def worker(name: str, run: Path, count: int, **environment: str) -> subprocess.Popen[str]:
    code = "import sys; from tests.e2e.test_remote import work; work(*sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, name, str(run), str(count)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def reasons(results: list[Result]) -> list[str]:
    return ["" if isinstance(result, Rendered) else str(result) for result in results]


def assert_made(results: list[Result], spec: GeneratorSpec) -> None:
    size = spec.size(SIZES[spec.name])
    assert reasons(results) == [""] * len(results)
    shapes = {result.frames.shape for result in results if isinstance(result, Rendered)}
    assert shapes == {(size.frames, size.height, size.width, 3)}


def once(*numbers: int) -> dict[int, int]:
    """Return what the server counts if each of these requests was paid for once."""
    return dict.fromkeys(numbers, 1)


@pytest.mark.parametrize("name", ROWS)
def test_results_come_in_order_with_many_in_flight(name: str, run: Path, served: Any) -> None:
    spec = ROWS[name]
    texts = ["a red fox", "refused fox", "unsafe fox", "failed fox"]
    with served(slow=20) as api:
        results = generated(spec, run, [asked(number, spec, text) for number, text in enumerate(texts)])
    assert_made(results[:1], spec)
    refused, unsafe, failed = reasons(results[1:])
    assert ("a person was shown" if name == "veo" else "OutputVideoSensitiveContentDetected") in refused
    assert ("violates our usage" if name == "veo" else "may contain sensitive information") in unsafe
    assert ("Internal error" if name == "veo" else "InternalServiceError") in failed
    assert "Request id" not in refused + unsafe + failed
    assert api.bought == once(0, 1, 3)
    assert 1 < api.most <= spec.batch


@pytest.mark.parametrize("name", ROWS)
def test_a_first_frame_is_sent_along(name: str, run: Path, served: Any) -> None:
    spec = ROWS[name]
    with served() as api:
        source = np.full((1, 72, 128, 3), 90, np.uint8)
        assert_made(generated(spec, run, [asked(0, spec, source=source)]), spec)
    assert [made.image for made in api.operations.values()] == [True]


@pytest.mark.parametrize("retry_after", ["date", "0.2s"])
def test_a_burst_of_refusals_is_waited_out(retry_after: str, run: Path, served: Any) -> None:
    faults = {"submit": ["429", "503", "503"], "poll": ["429", "500", "reset"]}
    with served(faults=faults, retry_after=retry_after) as api:
        results = generated(SEEDANCE, run, [asked(number, SEEDANCE) for number in range(3)])
    assert_made(results, SEEDANCE)
    assert api.bought == once(0, 1, 2)
    assert api.counts["submit"] == 6


def test_a_wait_that_is_asked_for_is_kept(run: Path, served: Any) -> None:
    with served(faults={"submit": ["429"]}, retry_after="1") as api:
        one_at_a_time = replace(SEEDANCE, batch=1)
        assert_made(generated(one_at_a_time, run, [asked(0, SEEDANCE), asked(1, SEEDANCE)]), SEEDANCE)
    assert api.early == 0


def test_downloads_that_break_are_made_again(run: Path, served: Any) -> None:
    with served(faults={"fetch": ["cut", "reset", "500", "cut"], "poll": ["reset"] * 3}) as api:
        assert_made(generated(SEEDANCE, run, [asked(0, SEEDANCE), asked(1, SEEDANCE)]), SEEDANCE)
    assert api.bought == once(0, 1)


@pytest.mark.parametrize("fault", ["lost", "reset", "500"])
def test_a_submission_whose_answer_is_lost_is_not_made_again(fault: str, run: Path, served: Any) -> None:
    requests = [asked(0, VEO), asked(1, SEEDANCE)]
    with served(faults={"submit": [fault, fault]}) as api:
        (veo,), (seedance,) = generated(VEO, run, requests[:1]), generated(SEEDANCE, run, requests[1:])
        again = [*generated(VEO, run, requests[:1]), *generated(SEEDANCE, run, requests[1:])]
    assert isinstance(veo, ItemError)
    assert "may have been paid" in str(veo)
    # ModelArk lists its tasks with their seeds; the Gemini API cannot tell.
    assert isinstance(seedance, Rendered if fault == "lost" else ItemError)
    assert api.counts["submit"] == 2
    assert reasons(again) == reasons([veo, seedance])


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("veo", "before it has an answer"),
        ("seedance", "before it has an answer"),
        ("veo", "before its note"),
        ("seedance", "after its note"),
    ],
)
def test_a_worker_that_is_killed_after_a_submission_never_pays_twice(
    name: str, where: str, run: Path, served: Any, tmp_path: Path
) -> None:
    when = "after" if where == "after its note" else "before"
    fault = Fault(folder=tmp_path / "fault", prefix="remote/", suffix="operation.json", when=when)
    at_server = where == "before it has an answer"
    with served(faults={"submit": ["kill"]} if at_server else {}) as api:
        process = worker(name, run, 1, **({} if at_server else fault.environment()))
        api.process = process.pid
        assert process.wait(60) < 0, process.communicate()
        assert api.bought == once(0)
        rerun = worker(name, run, 1)
        said, errors = rerun.communicate(timeout=60)
    assert rerun.returncode == 0, errors
    assert api.counts["submit"] == 1
    if where == "after its note" or name == "seedance":
        assert said.strip() == "made"
    else:
        assert "may have been paid" in said


def test_workers_that_meet_at_one_request_pay_once(run: Path, served: Any) -> None:
    results: list[Result] = []

    def one() -> None:
        requests = [asked(number, SEEDANCE) for number in range(3)]
        results.extend(generated(SEEDANCE, run, requests, pace=replace(FAST, window=60)))

    with served(slow=5) as api:
        threads = [threading.Thread(target=one) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 9
    assert_made(results, SEEDANCE)
    assert api.bought == once(0, 1, 2)


def test_the_budget_ends_in_the_middle_and_goes_on_when_raised(run: Path, served: Any) -> None:
    requests = [asked(number, SEEDANCE) for number in range(5)]
    with served() as api:
        first = generated(SEEDANCE, run, requests, budget=0.25)
        refused = [str(result) for result in first if isinstance(result, ItemError)]
        assert len(refused) == 3
        assert all("0.25 US dollars" in reason and "raise budget" in reason for reason in refused)
        assert sum(api.bought.values()) == 2
        nothing_more = generated(SEEDANCE, run, requests, budget=0.0)
        assert sum(isinstance(result, Rendered) for result in nothing_more) == 2
        assert_made(generated(SEEDANCE, run, requests, budget=0.5), SEEDANCE)
    assert api.bought == once(0, 1, 2, 3, 4)


def test_the_budget_is_that_of_all_generators(run: Path, served: Any) -> None:
    with served() as api:
        assert_made(generated(SEEDANCE, run, [asked(0, SEEDANCE)], budget=1.65), SEEDANCE)
        (veo,) = generated(VEO, run, [asked(1, VEO)], budget=1.65)
        assert_made(generated(SEEDANCE, run, [asked(2, SEEDANCE)], budget=1.65), SEEDANCE)
    assert "does not cover another item of veo at 1.6" in str(veo)
    assert api.bought == once(0, 2)


def test_what_the_service_refuses_at_once_costs_nothing(run: Path, served: Any) -> None:
    texts = ["unsafe fox", "unsafe fox", "a red fox"]
    requests = [asked(number, SEEDANCE, text) for number, text in enumerate(texts)]
    with served() as api:
        results = generated(replace(SEEDANCE, batch=1), run, requests, budget=0.1)
    assert_made(results[2:], SEEDANCE)
    assert api.bought == once(2)
    assert spent(open_store(str(run))) == 100_000


@pytest.mark.parametrize("name", ROWS)
def test_an_expired_result_is_a_row_not_a_purchase(name: str, run: Path, served: Any) -> None:
    spec = ROWS[name]
    with served(expiring=1) as api:  # an address can be renewed once
        assert_made(generated(spec, run, [asked(0, spec)]), spec)
        api.expiring = 9
        (again,) = generated(spec, run, [asked(0, spec)])
        assert "can no longer be fetched" in str(again)
        api.operations.clear()
        (gone,) = generated(spec, run, [asked(0, spec)])
        assert "no longer knows the operation" in str(gone)
    assert api.counts["submit"] == 1


def test_an_operation_that_is_never_done_ends_at_its_deadline(run: Path, served: Any) -> None:
    with served() as api:
        requests = [asked(0, SEEDANCE, "never ending"), asked(1, SEEDANCE, "expired fox")]
        results = generated(SEEDANCE, run, requests, pace=replace(FAST, deadline=0.3))
        assert "not done" in str(results[0])
        assert "expired" in str(results[1])
        for operation in api.operations.values():
            operation.prompt = "a red fox"
        assert_made(generated(SEEDANCE, run, requests), SEEDANCE)  # asked for again, it is there
    assert api.bought == once(0, 1)


@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_key_is_one_line_that_does_not_show_it(
    name: str, run: Path, served: Any, caplog: pytest.LogCaptureFixture
) -> None:
    other = "another-key-entirely"
    with served(key=other) as api, caplog.at_level(logging.DEBUG), pytest.raises(WorkerError) as caught:
        generated(ROWS[name], run, [asked(number, ROWS[name]) for number in range(3)])
    assert f"check {'GEMINI' if name == 'veo' else 'ARK'}_API_KEY" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert other not in caplog.text + "".join(traceback.format_exception(caught.value))
    assert not api.bought
    assert spent(open_store(str(run))) == 0


def test_no_key_and_no_address_is_stored_or_logged(
    run: Path, served: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with served() as api, caplog.at_level(logging.INFO):
        assert_made(generated(SEEDANCE, run, [asked(0, SEEDANCE)]), SEEDANCE)
    stored = [path.read_text() for path in run.rglob("*.json")]
    assert len(stored) == 2
    assert not any(secret in text for text in (*stored, caplog.text) for secret in (KEY, "Signature"))
    assert [key for path, key in api.keys if "download" in path] == [None]


def test_the_key_follows_no_redirect_to_another_host(run: Path, served: Any) -> None:
    with served() as api, RemoteApi(operations=api.operations) as other:
        api.elsewhere = other.uri
        assert_made(generated(VEO, run, [asked(0, VEO)]), VEO)
    assert {key for _, key in api.keys} == {KEY}
    assert [key for _, key in other.keys] == [None]


def test_a_service_that_is_gone_leaves_the_unit_to_be_done_again(run: Path, served: Any) -> None:
    with served(faults={"poll": ["500"] * 6}) as api:
        with pytest.raises(WorkerError, match="what is bought is noted"):
            generated(replace(SEEDANCE, batch=1), run, [asked(0, SEEDANCE)])
        assert_made(generated(SEEDANCE, run, [asked(0, SEEDANCE)]), SEEDANCE)
    assert api.bought == once(0)
    with pytest.raises(WorkerError, match="no connection"):
        generated(SEEDANCE, run, [asked(1, SEEDANCE)])
    assert spent(open_store(str(run))) == 100_000


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((864, 480, 49, 30), "30 frames a second, 24 were ordered"),
        ((864, 480, 24, 24), "24 frames of 864x480"),
        ((432, 240, 49, 24), "49 frames of 432x240"),
        ((832, 480, 47, 24), ""),  # told by the row as it is
    ],
)
def test_another_video_than_ordered(shape: Any, reason: str, run: Path, served: Any) -> None:
    with served(shape=lambda _: shape):
        (result,) = generated(SEEDANCE, run, [asked(0, SEEDANCE)])
    assert reason in reasons([result])[0]
    if isinstance(result, Rendered):
        assert result.frames.shape == (47, 480, 832, 3)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("a fox --dur 12", Size(width=864, height=480, frames=49, fps=24)),
        ("a fox", Size(width=480, height=480, frames=49, fps=24)),
        ("a fox", Size(width=1280, height=720, frames=49, fps=24)),
        ("a fox", Size(width=864, height=480, frames=33, fps=16)),
        ("a fox", Size(width=864, height=480, frames=480, fps=24)),
    ],
)
def test_what_cannot_be_ordered_is_refused_before_it_costs(
    text: str, size: Size, run: Path, served: Any
) -> None:
    with served() as api:
        (result,) = generated(SEEDANCE, run, [replace(asked(0, SEEDANCE, text), size=size)])
    assert isinstance(result, ItemError)
    assert not api.counts
    assert not list(run.rglob("*.json"))


def test_whoever_stops_listening_is_not_kept_waiting(run: Path, served: Any) -> None:
    with served() as api:
        generator = RemoteGenerator(SEEDANCE, RICH, replace(FAST, poll=3600, slowest=3600))
        generator.open(open_store(str(run)))
        texts = ["unsafe fox", *["never ending"] * 8]
        results = generator.generate(asked(number, SEEDANCE, text) for number, text in enumerate(texts))
        assert isinstance(next(results), ItemError)
        results.close()  # type: ignore[attr-defined]
        generator.close()
    notes = Notes(open_store(str(run)), SEEDANCE, RICH)
    assert len(api.operations) == spent(open_store(str(run))) / 100_000
    assert all(notes.find(f"{seed:032x}") for seed in api.bought)
