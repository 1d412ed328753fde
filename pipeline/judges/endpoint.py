"""A judge behind one or more servers that speak the OpenAI protocol, wherever they run."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np

from pipeline import media
from pipeline.errors import ItemError, MediaError, WorkerError
from pipeline.judges import asking
from pipeline.judges.asking import Asking, Side
from pipeline.judges.base import Answer, JudgeSpec, Media, Model, Question
from pipeline.judges.checklist import yes_no
from pipeline.judges.client import Client
from pipeline.judges.shown import show
from pipeline.judges.sites import Limits
from pipeline.records import Checks

REMEMBERED = 64
"""Media kept as they are sent, and scores of them: one meets every rival of its prompt in both orders."""

T = TypeVar("T")


def served_name(spec: Model) -> str:
    """Return the name under which a server must serve a model."""
    return spec.weights.repo if spec.weights else spec.name


class EndpointJudge:
    """Asks the servers at ``urls``. Raises ConfigError for an option that is not known."""

    def __init__(self, spec: JudgeSpec, urls: tuple[str, ...], limits: Limits | None = None) -> None:
        self._asking, self._model = Asking.of(spec), served_name(spec)
        self._urls, self._client = urls, Client(self._model, urls, limits)
        self._sides: _Once[Side] = _Once()
        self._scores: _Once[list[float]] = _Once()

    def open(self) -> None:
        """Wait until a server is there and check what it serves.

        Raises WorkerError if there is none or a wrong one, ConfigError for what is no url or no key.
        """
        self._client.open()

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Yield one answer per question, in order, while later ones are being asked already.

        What is refused or fails every time is invalid with the reason, if a plain question is answered then.
        Raises WorkerError if it is not, or when no server answers anything any more.
        """
        return self._client.ordered(self._answer(question) for question in questions)

    def close(self) -> None:
        """Drop what is in flight and close the connections."""
        self._client.close()

    async def _answer(self, question: Question) -> Answer:
        try:
            return await self._judged(question)
        except MediaError as error:
            return Answer(choice="invalid", p_a=None, raw=str(error))
        except ItemError as error:
            with contextlib.suppress(MediaError):  # damaged: no fault of the server
                await self._vouch(question, error)
            return Answer(choice="invalid", p_a=None, raw=str(error))

    async def _judged(self, question: Question) -> Answer:
        a, b = await asyncio.gather(self._side(question.a), self._side(question.b))
        if self._asking.ask == "checklist":
            asked = yes_no(question.prompt, question.checks, a.modality)
            return asking.scored(
                self._asking,
                *await asyncio.gather(
                    self._score(question.a, a, asked, question.prompt),
                    self._score(question.b, b, asked, question.prompt),
                ),
            )
        messages, reason = asking.comparison(self._asking, question.prompt, question.rubric, a, b), ""
        if self._asking.ask == "reason":
            request = asking.reasoning(self._asking, messages)
            reason = asking.said(await self._post(request, question.prompt, a, b))
            messages = asking.conclusion(messages, reason, a)
        request = asking.choosing(self._asking, messages, asking.WHICH)
        reply = await self._post(request, question.prompt, a, b)
        return asking.preference(asking.probabilities(reply, asking.WHICH), reason)

    def _side(self, medium: Media) -> asyncio.Future[Side]:
        return self._sides.get(medium.sha256, lambda: asyncio.to_thread(show, medium, self._asking))

    def _score(
        self, medium: Media, side: Side, asked: Sequence[str], near: str
    ) -> asyncio.Future[list[float]]:
        """Return how probable yes is to each question, asked once for all pairs and orders of the side."""
        return self._scores.get((medium.sha256, *asked), lambda: self._checked(side, asked, near))

    async def _checked(self, side: Side, asked: Sequence[str], near: str) -> list[float]:
        """Ask the first question alone: then the server has the medium in its cache for the others."""

        async def p_yes(question: str) -> float:
            request = asking.choosing(self._asking, asking.check(question, side), asking.WHETHER)
            return asking.probabilities(await self._post(request, near, side), asking.WHETHER)["yes"]

        first = await p_yes(asked[0])
        return [first, *await asyncio.gather(*map(p_yes, asked[1:]))]

    async def _post(self, request: dict[str, Any], near: str, *sides: Side) -> Any:
        request = {"model": self._model, **request}
        media = frozenset(shown.sha256 for side in sides for shown in side.shown)
        return await self._client.post(lambda named: asking.encoded(request, named), media, near)

    async def _vouch(self, refused: Question, cause: ItemError) -> None:
        """Ask about plain grey media of the same size: if that fails too, it is the server's fault."""
        a, b = await asyncio.to_thread(lambda: (_grey(refused.a), _grey(refused.b)))
        prompt = f"a grey wall, {refused.id}"  # a new question each time: no answer may come from memory
        plain = replace(refused, prompt=prompt, checks=Checks(), a=a, b=b)
        try:
            await self._judged(plain)
        except ItemError as error:
            raise WorkerError(
                f"plain grey media of this size have no answer either ({error}): serve {self._model} by vLLM "
                f"0.29 or newer, with room for both sides (--limit-mm-per-prompt, --max-model-len), at "
                f"{', '.join(self._urls)}"
            ) from cause


class _Once(Generic[T]):
    """Tasks by what they are about: what is asked for again is not done again."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[Hashable, asyncio.Task[T]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        task = self._tasks.get(key)
        if task is None or task.cancelled():
            self._tasks[key] = task = asyncio.get_running_loop().create_task(make())
        self._tasks.move_to_end(key)
        while len(self._tasks) > REMEMBERED:
            self._tasks.popitem(last=False)
        return task


def _grey(medium: Media) -> Media:
    """Return an even grey image or video of the size of ``medium``. Raises MediaError if it has none."""
    probe = media.probe(medium.data, medium.mime)
    frames = np.full((probe.frames, probe.height, probe.width, 3), 128, np.uint8)
    plain = media.encode(frames, probe.fps)
    return Media(sha256=plain.sha256, mime=plain.mime, data=plain.data)
