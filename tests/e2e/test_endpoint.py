"""A judge behind real HTTP servers on this machine: what it is told, what goes wrong on the way."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from itertools import permutations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import media
from pipeline.config import Rubric
from pipeline.errors import WorkerError
from pipeline.judges.base import Answer, JudgeSpec, Media, Question
from pipeline.judges.checklist import yes_no
from pipeline.judges.endpoint import EndpointJudge
from pipeline.judges.sites import Limits
from pipeline.records import Checks, ObjectCheck
from tests.e2e.openai_server import FAULTS, OpenAIServer, asked, completion, p_yes, parts, preference

RUBRIC = Rubric(question="Which image looks better?", criteria=("No noise.",))
CHECKS = Checks(objects=(ObjectCheck(name="car", count=2, colour="red"),))
LIMITS = Limits(in_flight=4, opening=0.1, patience=60.0, attempts=50, rest=0.002, longest=0.02)


def image(level: int) -> Media:
    made = media.encode(np.full((1, 16, 16, 3), level, np.uint8), 0)
    return Media(sha256=made.sha256, mime=made.mime, data=made.data)


def video(level: int) -> Media:
    made = media.encode(np.full((9, 16, 16, 3), level, np.uint8), 8)
    return Media(sha256=made.sha256, mime=made.mime, data=made.data)


def questions(sides: list[Media], prompt: str = "two red cars") -> list[Question]:
    """Return every pair of ``sides`` in both orders."""
    return [
        Question(id=f"{a.sha256}{b.sha256}", prompt=prompt, checks=CHECKS, rubric=RUBRIC, a=a, b=b)
        for a, b in permutations(sides, 2)
    ]


IMAGES = [image(level) for level in (10, 60, 110, 160)]
QUESTIONS = questions(IMAGES)


def make(*urls: str, limits: Limits = LIMITS, **options: float | str) -> EndpointJudge:
    spec = JudgeSpec(name="judge", family="vlm", modalities=("image", "video"), options=options)
    return EndpointJudge(spec, urls, limits)


def answers(judge: EndpointJudge, asked_of: list[Question]) -> list[Answer]:
    judge.open()
    try:
        return list(judge.ask(iter(asked_of)))
    finally:
        judge.close()


def check(found: list[Answer], asked_of: list[Question] = QUESTIONS) -> None:
    """Fail unless every question has the one answer that its media call for."""
    for question, answer in zip(asked_of, found, strict=True):
        a, b, c = preference(question.a.sha256, question.b.sha256)
        assert answer.p_a == pytest.approx(a + c / 2), answer
        assert answer.choice == ("a", "b", "tie")[[a, b, c].index(max(a, b, c))]
        assert answer.raw == f"A={a:.4f} B={b:.4f} C={c:.4f}"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as one:
        yield one


# -- the usual


def test_every_question_is_answered_in_order(server: OpenAIServer) -> None:
    check(answers(make(server.url), QUESTIONS))
    assert set(server.answered.values()) == {1}
    assert len(server.answered) == len(QUESTIONS)


def test_a_medium_travels_once_to_a_server_that_holds_it(server: OpenAIServer) -> None:
    check(answers(make(server.url), QUESTIONS))
    assert server.sent == {each.sha256: 1 for each in IMAGES}


def test_a_server_of_another_kind_is_sent_every_medium_each_time() -> None:
    with OpenAIServer(vllm=False) as server:
        check(answers(make(server.url), QUESTIONS))
        assert set(server.sent.values()) == {2 * (len(IMAGES) - 1)}


def test_a_server_that_holds_nothing_is_soon_sent_everything() -> None:
    with OpenAIServer(holds=False) as server:
        check(answers(make(server.url, limits=Limits(in_flight=1)), QUESTIONS))
        assert server.statuses[400] == 4
        assert set(server.answered.values()) == {1}


def test_no_more_requests_are_in_flight_than_allowed(server: OpenAIServer) -> None:
    many = [question for n in range(12) for question in questions(IMAGES, f"prompt {n}")]
    check(answers(make(server.url), many), many)
    assert 2 <= server.at_once <= LIMITS.in_flight


def test_questions_are_taken_as_they_are_needed_and_dropped_with_their_asker(server: OpenAIServer) -> None:
    taken = 0

    def endless() -> Iterator[Question]:
        nonlocal taken
        while True:
            taken += 1
            yield questions(IMAGES[:2], f"prompt {taken}")[0]

    judge = make(server.url)
    judge.open()
    stream = judge.ask(endless())
    check([next(stream)], QUESTIONS[:1])
    stream.close()  # type: ignore[attr-defined]
    assert taken < 100
    check(list(judge.ask(iter(QUESTIONS))))
    judge.close()
    judge.close()
    assert set(server.answered.values()) == {1}


def test_video_is_asked_about_as_frames(server: OpenAIServer) -> None:
    pair = questions([video(30), video(200)])
    found = answers(make(server.url, frames=3), pair)
    assert [answer.choice for answer in found] in (["a", "b"], ["b", "a"], ["tie", "tie"])
    assert (found[0].p_a or 0) + (found[1].p_a or 0) == pytest.approx(1)
    texts = [part.get("text") for part in parts(server.bodies[0])]
    assert texts[1::2][:3] == ["0.00 s:", "0.50 s:", "1.00 s:"]


def test_reasoning_is_what_the_choice_goes_on_from(server: OpenAIServer) -> None:
    found = answers(make(server.url, ask="reason", tokens=40), QUESTIONS[:1])
    reasoning, choice = server.bodies
    assert reasoning["max_tokens"] == 40
    assert "structured_outputs" not in reasoning
    assert [each["role"] for each in choice["messages"]] == ["system", "user", "assistant", "user"]
    assert parts(choice)[-1] == parts(reasoning)[-1]
    assert choice["messages"][2] == {
        "role": "assistant",
        "content": "A has < |im_end|> fewer\x07 flaws than B.",
    }
    assert found[0].raw.startswith("A has <|im_end|> fewer flaws than B.\nA=")


def test_a_checklist_asks_a_side_once_for_all_pairs_and_orders(server: OpenAIServer) -> None:
    found = answers(make(server.url, ask="checklist"), QUESTIONS)
    wanted = yes_no("two red cars", CHECKS, "image")
    assert len(server.answered) == len(IMAGES) * len(wanted)
    assert set(server.answered.values()) == {1}
    score = {
        each.sha256: sum(p_yes(each.sha256, question) for question in wanted) / len(wanted) for each in IMAGES
    }
    by_sides = dict(zip(((q.a.sha256, q.b.sha256) for q in QUESTIONS), found, strict=True))
    for (a, b), answer in by_sides.items():
        assert answer.raw.startswith(f"a={score[a]:.4f} [")
        assert (answer.p_a or 0) + (by_sides[b, a].p_a or 0) == pytest.approx(1)
        assert (answer.choice == "a") == (score[a] - score[b] >= 0.05)


# -- faults


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_another_try_and_nothing_else(fault: str) -> None:
    limits = Limits(
        in_flight=4, timeout=0.3 if fault == "slow" else 60.0, attempts=50, rest=0.002, longest=0.02
    )
    with OpenAIServer(faults=[fault] * 5) as server:
        check(answers(make(server.url, limits=limits), QUESTIONS))
        assert server.statuses[fault] == 5
        assert set(server.answered.values()) == {1}


@pytest.mark.slow
@given(st.lists(st.sampled_from([*(set(FAULTS) - {"slow"}), "none"]), max_size=40))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_goes_wrong_the_answers_are_the_same(server: OpenAIServer, faults: list[str]) -> None:
    server.faults.extend(faults)
    server.answered.clear()
    server.at_once = 0
    check(answers(make(server.url), QUESTIONS))
    assert set(server.answered.values()) == {1}
    assert server.at_once <= LIMITS.in_flight
    server.faults.clear()


def test_a_server_that_comes_back_on_its_port_is_asked_only_what_is_open(server: OpenAIServer) -> None:
    judge = make(server.url)
    judge.open()
    found = []
    many = [question for n in range(6) for question in questions(IMAGES, f"prompt {n}")]
    for answer in judge.ask(iter(many)):
        found.append(answer)
        if len(found) == 20:
            server.stop()
            delivered, before = many[:20], len(server.bodies)
            back = threading.Timer(0.2, server.start)  # until then nobody listens
            back.start()
    judge.close()
    back.join()
    check(found, many)
    answered = {(prompt_of(q), q.a.sha256, q.b.sha256) for q in delivered}
    assert len(server.bodies) > before
    for body in server.bodies[before:]:
        a, b = (part["uuid"] for part in parts(body) if "uuid" in part)
        assert not {(q, a, b) for q, *_ in answered if q in parts(body)[-1]["text"]} & answered


def prompt_of(question: Question) -> str:
    return json.dumps(question.prompt)


def test_another_server_takes_over_and_the_dead_one_rests(server: OpenAIServer) -> None:
    with OpenAIServer(faults=["500"] * 1000) as ill:
        many = [question for n in range(10) for question in questions(IMAGES, f"prompt {n}")]
        limits = Limits(in_flight=4, attempts=50, rest=0.2, longest=60.0)
        check(answers(make(ill.url, server.url, limits=limits), many), many)
        assert not ill.answered
        assert ill.statuses["500"] < 20
        assert sum(server.answered.values()) == len(many)


def test_requests_about_one_prompt_go_to_one_server(server: OpenAIServer) -> None:
    with OpenAIServer() as other:
        few = [question for n in range(8) for question in questions(IMAGES[:2], f"prompt {n}")]
        check(answers(make(server.url, other.url, limits=Limits()), few), few)
        for n in range(8):
            at = [
                sum(json.dumps(f"prompt {n}") in parts(body)[-1]["text"] for body in each.bodies)
                for each in (server, other)
            ]
            assert sorted(at) == [0, 2]


# -- refusals


def test_a_refused_image_is_invalid_and_the_others_are_judged() -> None:
    with OpenAIServer(refused={IMAGES[0].sha256: 400}) as server:
        found = answers(make(server.url), QUESTIONS)
    for question, answer in zip(QUESTIONS, found, strict=True):
        if IMAGES[0] in (question.a, question.b):
            assert answer == Answer(
                choice="invalid",
                p_a=None,
                raw="refused: Failed to load image: cannot identify image file",
            )
        else:
            check([answer], [question])


def test_an_image_on_which_the_server_falls_over_is_given_up() -> None:
    limits = Limits(in_flight=4, attempts=3, rest=0.002, longest=0.02)
    with OpenAIServer(refused={IMAGES[0].sha256: 500}) as server:
        found = answers(make(server.url, limits=limits), QUESTIONS)
    for question, answer in zip(QUESTIONS, found, strict=True):
        assert (answer.choice == "invalid") == (IMAGES[0] in (question.a, question.b))
        assert answer.choice != "invalid" or answer.raw.startswith("failed 3 times: http://127")


@pytest.mark.parametrize("ask", ["choice", "reason", "checklist"])
def test_an_engine_that_breaks_after_a_refusal_stops_the_worker(ask: str) -> None:
    limits = Limits(in_flight=4, attempts=3, rest=0.002, longest=0.02)
    with OpenAIServer(refused={IMAGES[0].sha256: 400}) as server:
        judge = make(server.url, limits=limits, ask=ask)
        judge.open()
        assert [answer.choice for answer in judge.ask(QUESTIONS[:2])] == ["invalid"] * 2
        server.refused = {"all": 500}
        with pytest.raises(WorkerError, match="plain grey media of this size have no answer either"):
            list(judge.ask(QUESTIONS[6:]))
        judge.close()


def test_a_damaged_image_that_the_server_refuses_is_invalid() -> None:
    broken = Media(sha256=hashlib.sha256(b"no image").hexdigest(), mime="image/jpeg", data=b"no image")
    with OpenAIServer(refused={broken.sha256: 400}) as server:
        found = answers(make(server.url), questions([broken, IMAGES[0]]))
    assert {answer.choice for answer in found} == {"invalid"}


def test_a_damaged_video_is_invalid_without_being_sent(server: OpenAIServer) -> None:
    broken = Media(sha256="0" * 64, mime="video/mp4", data=b"no video")
    found = answers(make(server.url), questions([broken, video(9)]))
    assert {answer.choice for answer in found} == {"invalid"}
    assert not server.bodies


@pytest.mark.parametrize(
    ("server", "says"),
    [
        (OpenAIServer(refused={"all": 400}), "Failed to load image"),
        (OpenAIServer(reply=completion("A")), "no log-probabilities"),
        (OpenAIServer(reply=completion("The", {"The": -0.1})), "none of A, B, C: 'The'"),
        (OpenAIServer(reply={"object": "chat.completion"}), "no log-probabilities"),
    ],
    ids=["refuses", "no log-probabilities", "ignores the constraint", "no completion"],
)
def test_a_server_that_cannot_be_asked_this_way_stops_the_worker(server: OpenAIServer, says: str) -> None:
    with (
        server,
        pytest.raises(WorkerError, match=f"plain grey media of this size have no answer either .*{says}"),
    ):
        answers(make(server.url), QUESTIONS)


# -- the server of these tests


def test_the_server_knows_a_question_however_its_media_came() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:,"}, "uuid": hashlib.sha256(b"").hexdigest()}
    sent = {"messages": [{"role": "user", "content": [part]}]}
    named = {"messages": [{"role": "user", "content": [{**part, "image_url": None}]}]}
    assert asked(sent) == asked(named)
