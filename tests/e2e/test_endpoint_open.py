"""A judge without a server, with a wrong one, or with a key: what a user is told."""

from __future__ import annotations

import socket

import pytest

from pipeline.errors import ConfigError, WorkerError
from pipeline.judges.base import JudgeSpec
from pipeline.judges.endpoint import EndpointJudge
from pipeline.judges.sites import Limits
from tests.e2e.openai_server import OpenAIServer, completion
from tests.e2e.test_endpoint import LIMITS, QUESTIONS, answers, check, make, server

__all__ = ["server"]  # a fixture

KEY = "a-key-that-no-message-may-show"


def nobody() -> str:
    """Return a url where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def test_a_server_that_is_not_there_is_one_line() -> None:
    url = nobody()
    with pytest.raises(
        WorkerError, match=f"^{url}: Connection refused, for 0.1 s: start a server of judge there"
    ) as caught:
        answers(make(url), QUESTIONS)
    assert "\n" not in str(caught.value)


def test_one_server_of_two_is_enough(server: OpenAIServer) -> None:
    check(answers(make(nobody(), server.url), QUESTIONS))


def test_a_server_that_dies_for_good_stops_the_worker(server: OpenAIServer) -> None:
    judge = make(server.url, limits=Limits(in_flight=4, patience=0.2, rest=0.01, longest=0.05))
    judge.open()
    stream = judge.ask(iter(QUESTIONS * 20))
    next(stream)
    server.stop()
    with pytest.raises(WorkerError, match=f"^no answer for 0.2 s, last {server.url}: .*: mend that server$"):
        list(stream)
    judge.close()


def test_a_wrong_model_is_one_line(server: OpenAIServer) -> None:
    spec = JudgeSpec(name="another", family="vlm", modalities=("image",))
    with pytest.raises(
        WorkerError, match="serves judge, not another: mend the url in the profile's endpoints"
    ):
        EndpointJudge(spec, (server.url,), LIMITS).open()


def test_a_url_that_is_no_endpoint_is_one_line(server: OpenAIServer) -> None:
    with pytest.raises(WorkerError, match="HTTP 404, Not Found: such a url ends in /v1"):
        make(server.url.removesuffix("/v1")).open()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host/v1", "http://", "http://host:port/v1", ""])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no url of the kind http://host:8000/v1"):
        make(url).open()


def test_a_judge_that_is_not_open_says_so() -> None:
    with pytest.raises(WorkerError, match="before open"):
        list(make("http://127.0.0.1:1/v1").ask(iter(QUESTIONS)))


# -- the key


def test_the_key_is_sent_and_never_shown(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPO_JUDGE_KEY", KEY)
    check(answers(make(server.url), QUESTIONS))
    assert {headers["authorization"] for headers in server.headers} == {f"bearer {KEY}"}
    with OpenAIServer(reply=completion(KEY, {KEY: -0.1})) as parrot, pytest.raises(WorkerError) as caught:
        answers(make(parrot.url), QUESTIONS)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_one_line(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPO_JUDGE_KEY", KEY)
    with OpenAIServer(faults=[str(status)] * 99) as server, pytest.raises(WorkerError) as caught:
        answers(make(server.url), QUESTIONS)
    assert f"HTTP {status}, fault {status}: set VIPO_JUDGE_KEY" in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_url_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError, match="a key goes into VIPO_JUDGE_KEY") as caught:
        make(f"http://me:{KEY}@host/v1").open()
    assert KEY not in str(caught.value)
