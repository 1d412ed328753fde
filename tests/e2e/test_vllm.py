"""Judges served by a real vLLM: what they answer, and what is left when processes are killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from pipeline.errors import VipoError
from pipeline.judges.base import Answer, Hosting, JudgeSpec, Media, Question
from pipeline.judges.endpoint import EndpointJudge
from pipeline.judges.server import ServedJudge
from pipeline.media.symbols import COLOURS
from pipeline.pools.rewriting import constraint, lost
from pipeline.records import Checks, ObjectCheck, Prompt, RelationCheck
from pipeline.rewriters.asking import SAMPLE
from pipeline.rewriters.base import RewriterSpec, Sentences, Unrewritten
from pipeline.rewriters.served import Rewriter
from tests.e2e.vllm import (
    REPO,
    Processes,
    brighter,
    grey,
    question,
    served,
    small,
    vllm_python,
    weights,
)
from tests.e2e.world import dead, until
from tests.weights import vlm

__all__ = ["brighter", "served", "vllm_python"]  # fixtures

pytestmark = pytest.mark.slow


def test_the_brighter_side_wins_in_both_orders(served: ServedJudge) -> None:
    levels = [(20, 220), (230, 90), (140, 30), (60, 180)]
    pairs = [(grey(a, seed), grey(b, seed + 100)) for seed, (a, b) in enumerate(levels)]
    answers = list(served.ask(asked for pair in pairs for asked in both_orders(*pair)))
    assert [answer.choice for answer in answers] == [
        side for a, b in levels for side in ("ab" if a > b else "ba")
    ]
    for forward, swapped in zip(answers[::2], answers[1::2], strict=True):
        assert probability(forward) == pytest.approx(1 - probability(swapped), abs=0.01)


def test_sides_that_are_alike_are_a_tie(served: ServedJudge) -> None:
    (answer,) = served.ask([question("alike", grey(120, 1), grey(122, 2))])
    assert answer.choice == "tie"
    assert 0.2 < probability(answer) < 0.8


def test_videos_are_judged_by_their_frames(served: ServedJudge) -> None:
    answers = served.ask(both_orders(grey(40, 3, seconds=1), grey(200, 4, seconds=1)))
    assert [answer.choice for answer in answers] == ["b", "a"]


def test_every_answer_is_one_that_was_allowed(served: ServedJudge) -> None:
    levels = [(n * 8, 255 - n * 5) for n in range(32)]
    answers = list(served.ask(question(str(a), grey(a, a), grey(b, b)) for a, b in levels))
    assert {answer.choice for answer in answers} == {"a", "b", "tie"}
    assert all(0 <= probability(answer) <= 1 for answer in answers)


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("ask", ["reason", "checklist"])
def test_other_ways_of_asking_find_the_brighter_side(brighter: JudgeSpec, ask: str) -> None:
    judge = EndpointJudge(replace(brighter, options={"ask": ask, "tokens": 8}), (running(brighter).url,))
    judge.open()
    answers = judge.ask(both_orders(grey(90, 5), grey(210, 6)))
    assert [answer.choice for answer in answers] == ["b", "a"]
    judge.close()


def test_a_medium_that_the_server_refuses_is_invalid_and_the_rest_is_judged(served: ServedJudge) -> None:
    sound, dark = grey(200, 7), grey(50, 8)
    cut = Media(sha256="0" * 64, mime=sound.mime, data=sound.data[: len(sound.data) // 2])
    refused, judged = served.ask([question("cut", cut, dark), question("sound", sound, dark)])
    assert (refused.choice, judged.choice) == ("invalid", "a")
    assert refused.raw.startswith("refused: ")
    assert "\n" not in refused.raw


@pytest.mark.usefixtures("served")
def test_nothing_listens_beyond_this_machine(brighter: JudgeSpec) -> None:
    assert running(brighter).listens_at() == {"0100007F"}


def test_a_server_killed_while_it_is_asked_comes_back_and_none_is_asked_again_that_was_answered(
    served: ServedJudge, brighter: JudgeSpec
) -> None:
    levels = [(2 * n, 255 - 2 * n) for n in range(120)]
    questions = [question(f"kill {a}", grey(a, a + 300), grey(b, b + 600)) for a, b in levels]
    old = running(brighter)
    before = old.answered()
    answers = served.ask(questions)
    first = list(islice(answers, 40))
    os.kill(old.server, signal.SIGKILL)
    until(lambda: all(dead(pid) for pid in old.all), "the end of all that the server had started")
    by_then = old.answered()
    every = [*first, *answers]
    new = running(brighter)
    assert by_then - before >= len(first)
    assert new.answered() - by_then <= len(questions) - len(first)
    clear = [(answer.choice, a > b) for answer, (a, b) in zip(every, levels, strict=True) if abs(a - b) > 40]
    assert {choice for choice, ahead in clear if ahead} == {"a"}
    assert {choice for choice, ahead in clear if not ahead} == {"b"}


@pytest.mark.usefixtures("served")
def test_a_rewriter_writes_what_the_constraint_allows_and_is_asked_back(brighter: JudgeSpec) -> None:
    """The model writes noise: what holds is held by the constraint, the checks and the questions."""
    prompts = [said(f"Three red stars above a {colour} car.", colour) for colour in COLOURS]
    given = [Sentences(root=prompt, perturbed=(), modality="image") for prompt in prompts]
    spec = RewriterSpec(name="noise", weights=brighter.weights)
    hosting = Hosting(urls=(running(brighter).url,))
    found = {}
    for threshold in (0.0, 1.0):
        rewriter = Rewriter(spec, hosting, threshold=threshold)
        rewriter.open()
        found[threshold] = list(rewriter.rewrite(given))
        rewriter.close()
    assert {outcome.why for outcome in found[0.0]} <= {None, Unrewritten.LOST}
    assert any(outcome.texts for outcome in found[0.0])
    for prompt, outcome in zip(prompts, found[0.0], strict=True):
        for text in outcome.texts:
            assert re.fullmatch(constraint(prompt), text)
            assert lost(text, prompt) is None
    assert {outcome.why for outcome in found[1.0]} <= {Unrewritten.DENIED, Unrewritten.LOST}
    assert any(outcome.why is Unrewritten.DENIED for outcome in found[1.0])


def test_nothing_is_left_of_a_killed_owner(vllm_python: str, brighter: JudgeSpec, tmp_path: Path) -> None:
    assert brighter.weights
    shutil.copytree(f"{brighter.weights.root}/{REPO}", tmp_path / REPO)
    spec = replace(brighter, weights=weights(tmp_path))
    owner = multiprocessing.get_context("spawn").Process(target=ServedJudge(spec, vllm_python).open)
    with small():
        owner.start()

    def complete() -> bool:
        found = Processes.serving(spec.weights)
        return bool(found) and "VLLM::EngineCor" in found[0].names and len(found[0].below) >= 3

    until(complete, "an engine and its worker")
    (processes,) = Processes.serving(spec.weights)
    owner.kill()
    owner.join()
    until(lambda: all(dead(pid) for pid in processes.all), "the end of all processes")
    shutil.rmtree(processes.log.parent)


def test_weights_of_an_unknown_model_are_refused_in_one_line(
    vllm_python: str, brighter: JudgeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert brighter.weights
    shutil.copytree(f"{brighter.weights.root}/{REPO}", tmp_path / REPO)
    config = tmp_path / REPO / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "no_such_model"}))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spec = replace(brighter, weights=weights(tmp_path))
    said = refused(ServedJudge(spec, vllm_python))
    assert Processes.serving(spec.weights) == []
    assert said.startswith("judge brighter: its server ended: Value error, ")
    assert "no_such_model" in said
    assert "no_such_model" in Path(said.rpartition(": see ")[2]).read_text()


def test_the_tiny_model_is_the_same_to_the_byte_each_time(brighter: JudgeSpec, tmp_path: Path) -> None:
    vlm.build(tmp_path / REPO)
    assert weights(tmp_path).revision == (brighter.weights and brighter.weights.revision)


@pytest.mark.parametrize("python", ["/nowhere/python", sys.executable])
def test_a_python_without_vllm_is_refused_in_one_line(brighter: JudgeSpec, python: str) -> None:
    assert python in refused(ServedJudge(brighter, python))


def test_weights_that_are_not_there_are_refused_in_one_line(vllm_python: str, brighter: JudgeSpec) -> None:
    assert brighter.weights
    nowhere = replace(brighter.weights, root="/nowhere")
    assert "/nowhere" in refused(ServedJudge(replace(brighter, weights=nowhere), vllm_python))


def refused(judge: ServedJudge) -> str:
    """Return what is said, in one line, when ``judge`` cannot be opened."""
    with pytest.raises(VipoError) as caught:
        judge.open()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def running(brighter: JudgeSpec) -> Processes:
    """Return the processes of the shared server."""
    (found,) = Processes.serving(brighter.weights)
    return found


def said(text: str, colour: str) -> Prompt:
    """Return a prompt of three red stars above a car."""
    stars = ObjectCheck(name="star", count=3, colour="red")
    car = ObjectCheck(name="car", count=1, colour=colour)
    above = RelationCheck(subject=0, relation="above", object=1)
    return replace(SAMPLE.root, id=text, text=text, checks=Checks(objects=(stars, car), relations=(above,)))


def both_orders(first: Media, second: Media) -> Iterator[Question]:
    name = f"{first.sha256}{second.sha256}"
    yield question(f"forward {name}", first, second)
    yield question(f"swapped {name}", second, first)


def probability(answer: Answer) -> float:
    assert answer.p_a is not None, answer
    return answer.p_a
