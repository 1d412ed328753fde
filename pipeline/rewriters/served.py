"""A rewriter behind servers that speak the OpenAI protocol, or with a vLLM server of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.errors import ItemError, WorkerError
from pipeline.judges.asking import WHETHER, probabilities, said
from pipeline.judges.base import Hosting
from pipeline.judges.client import Client
from pipeline.judges.endpoint import served_name
from pipeline.judges.server import OwnServer
from pipeline.judges.sites import Limits
from pipeline.judges.untrusted import printable
from pipeline.pools import rewriting
from pipeline.records import Prompt
from pipeline.rewriters.asking import ATTEMPTS, SAMPLE, body, questions, request
from pipeline.rewriters.base import Outcome, RewriterSpec, Sentences, Unrewritten

LONGEST = 200
"""Characters of an answer, or of a server's words, that a row keeps."""


class _KeptError(Exception):
    """An answer that is not taken; never leaves this module."""

    def __init__(self, why: Unrewritten, detail: str = "") -> None:
        super().__init__(detail)
        self.outcome = Outcome(why=why, detail=printable(detail)[:LONGEST])


class Rewriter:
    """Asks where ``hosting`` says; with no url there a server is started. ``limits`` are of such urls."""

    def __init__(
        self, spec: RewriterSpec, hosting: Hosting, *, threshold: float, limits: Limits | None = None
    ) -> None:
        self._spec, self._model, self._threshold = spec, served_name(spec), threshold
        self._urls, self._limits = hosting.urls, limits
        self._server = None if hosting.urls else OwnServer(spec, hosting.vllm, kind="rewriter")
        self._client: Client | None = None

    def open(self) -> None:
        """Reach a server and try it with a sample. Raises ConfigError, WorkerError, or as ``locate``."""
        try:
            if self._server:
                url, self._limits = self._server.open()
                self._urls = (url,)
            self._client = Client(self._model, self._urls, self._limits)
            self._client.open()
            list(self._client.ordered([self._tried()]))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drop what is in flight; end the server if it is its own."""
        if self._client:
            self._client.close()
        if self._server:
            self._server.close()
        self._client = None

    def rewrite(self, every: Iterable[Sentences]) -> Iterator[Outcome]:
        """Yield one outcome per family, in order, while later ones are being asked already.

        Raises WorkerError when the servers answer nothing any more, or not even a sample.
        """
        if self._client is None:
            raise WorkerError(f"rewriter {self._spec.name}: not open: call open() before rewrite()")
        try:
            yield from self._client.ordered(self._rewritten(given) for given in every)
        except WorkerError:
            if self._server:
                self._server.check()
            raise

    async def _rewritten(self, given: Sentences) -> Outcome:
        if not all(map(rewriting.checkable, (given.root, *given.perturbed))):
            return Outcome(why=Unrewritten.UNCHECKABLE)
        outcome = Outcome()
        for attempt in range(ATTEMPTS):
            try:
                return Outcome(texts=await self._taken(given, attempt))
            except _KeptError as kept:
                outcome = kept.outcome
            except ItemError as error:
                await self._tried(cause=error)  # it is the server's fault if it does not answer that either
                outcome = _KeptError(Unrewritten.REFUSED, str(error)).outcome
        return outcome

    async def _taken(self, given: Sentences, attempt: int) -> tuple[str, ...]:
        """Return an answer that has survived every check, and the same for the perturbed prompts."""
        text = await self._prose(given, attempt)
        if text == given.root.text:
            raise _KeptError(Unrewritten.UNCHANGED)
        fault = rewriting.lost(text, given.root)
        if fault:
            raise _KeptError(Unrewritten.LOST, f"{fault}: {text}")
        texts = (text, *(_carried(text, given.root, prompt) for prompt in given.perturbed))
        await self._ask_back(given, texts)
        return texts

    async def _prose(self, given: Sentences, attempt: int) -> str:
        text = said(await self._post(request(given, attempt), given.root.id))
        if not re.fullmatch(rewriting.constraint(given.root), text):
            raise _KeptError(Unrewritten.MALFORMED, text)
        return text

    async def _ask_back(self, given: Sentences, texts: tuple[str, ...]) -> None:
        """Refuse ``texts`` unless the model itself finds all in them."""
        asked = questions(given, texts)
        sure = await asyncio.gather(*(self._p_yes(each, given.root.id) for _, each in asked))
        least, question = min(zip(sure, (question for question, _ in asked), strict=True))
        if least < self._threshold:
            raise _KeptError(Unrewritten.DENIED, f"{least:.2f} yes to {question} {texts[0]}")

    async def _p_yes(self, asked: dict[str, Any], near: str) -> float:
        return probabilities(await self._post(asked, near), WHETHER)["yes"]

    async def _post(self, asked: dict[str, Any], near: str) -> Any:
        if self._client is None:
            raise WorkerError(f"rewriter {self._spec.name}: closed while it was asked")
        return await self._client.post(lambda _: body(self._model, asked), frozenset(), near)

    async def _tried(self, cause: Exception | None = None) -> None:
        """Ask about a sample: a server must answer within the constraint, and with probabilities."""
        try:
            await self._prose(SAMPLE, 0)
            await self._p_yes(questions(SAMPLE, (SAMPLE.root.text, SAMPLE.perturbed[0].text))[0][1], "sample")
        except (_KeptError, ItemError) as error:
            raise WorkerError(
                f"rewriter {self._spec.name}: a sample has no answer of the form that was asked for "
                f"({printable(str(error))[:LONGEST]!r}): serve {self._model} by vLLM 0.29 or newer with "
                f'--structured-outputs-config \'{{"backend": "guidance"}}\' at {", ".join(self._urls)}'
            ) from cause or error


def _carried(text: str, root: Prompt, perturbed: Prompt) -> str:
    carried = rewriting.carried(text, root, perturbed)
    if carried is None:
        raise _KeptError(Unrewritten.PERTURBED, f"{perturbed.perturbation}: {text}")
    return carried
