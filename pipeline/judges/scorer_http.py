"""Scorers behind HTTP: models whose packages do not go with ours run in a process of their own.

One request a picture: POST {"prompt": text, "image": base64 of a JPEG}, answered by {"score": number}. The
url stands in an environment variable, not in the row: where a model runs does not change what it answers. A
video's score is the mean over evenly spaced frames.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from statistics import fmean
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np

from pipeline import media
from pipeline.errors import ConfigError, ItemError, MediaError, WorkerError
from pipeline.judges.base import JudgeSpec, Media
from pipeline.judges.scorer import Score, Side
from pipeline.judges.shown import sampled
from pipeline.judges.sites import Limits
from pipeline.judges.transport import BUSY, REFUSALS
from pipeline.judges.untrusted import printable

if TYPE_CHECKING:
    import httpx2

LONGEST_REASON = 300
PLAIN = ("a grey wall", 224)
"""Prompt, and edge in pixels, of the picture that tells a refused medium from a server that is no use."""


class HttpScorer:
    """Asks the server at the url that the environment variable ``variable(spec.name)`` holds."""

    def __init__(self, spec: JudgeSpec, limits: Limits) -> None:
        self._name, self._limits = spec.name, limits
        self._frames = int(spec.options.get("frames", 1))
        self._url = ""
        self._http: httpx2.Client | None = None
        self._threads = ThreadPoolExecutor(1)

    def open(self) -> None:
        """Have a grey picture scored. Raises ConfigError for no url, WorkerError if there is no score."""
        import httpx2

        self._url = _url(self._name)
        self._http = httpx2.Client(
            timeout=self._limits.timeout,
            limits=httpx2.Limits(max_connections=self._limits.in_flight),
            mounts={
                "all://127.0.0.1": None,
                "all://localhost": None,
            },  # a proxy cannot reach this machine's own
        )
        self._threads = ThreadPoolExecutor(self._limits.in_flight)
        self._vouch()

    def scores(self, sides: Sequence[Side]) -> list[Score]:
        """Ask about several sides at a time. Raises WorkerError if the server answers nothing any more."""
        return list(self._threads.map(self._side, sides))

    def close(self) -> None:
        """Close the connections."""
        self._threads.shutdown(cancel_futures=True)
        if self._http:
            self._http.close()
        self._http = None

    def _side(self, side: Side) -> Score:
        prompt, medium = side
        try:
            return fmean(self._picture(prompt, picture) for picture in _pictures(medium, self._frames))
        except MediaError as error:
            return error
        except ItemError as error:
            self._vouch()
            return error

    def _vouch(self) -> None:
        """Raise WorkerError unless a plain grey picture has a score: then what was refused was at fault."""
        prompt, edge = PLAIN
        grey = media.encode(np.full((1, edge, edge, 3), 128, np.uint8), fps=0)
        try:
            self._picture(prompt, grey.data)
        except ItemError as error:
            raise WorkerError(
                f"{self._where}: not even a plain grey picture has a score ({error}): mend the scorer there"
            ) from error

    def _picture(self, prompt: str, picture: bytes) -> float:
        """Return one score. Raises ItemError if there is none, WorkerError if nobody is there."""
        body = json.dumps({"prompt": prompt, "image": base64.b64encode(picture).decode()}).encode()
        for turn in count(1):
            cause, gone = "", False
            try:
                return self._once(body)
            except _Fault as fault:
                cause, gone = str(fault), fault.gone
            if turn >= self._limits.attempts:
                failed = f"failed {turn} times: {cause}"
                if gone:
                    raise WorkerError(f"{self._where}: {failed}: start the scorer there, or mend the url")
                raise ItemError(failed)
            time.sleep(self._limits.pause(turn))
        raise AssertionError  # count() has no end

    def _once(self, body: bytes) -> float:
        import httpx2

        if self._http is None:
            raise WorkerError("judge was asked before open(): call open() once in the worker")
        try:
            response = self._http.post(self._url, content=body, headers={"content-type": "application/json"})
        except httpx2.HTTPError as error:
            raise _Fault(_line(str(error)) or type(error).__name__, gone=True) from error
        if response.status_code == 200:
            return _number(response.content)
        said = f"HTTP {response.status_code}, {_line(response.content.decode(errors='replace'))}"
        if response.status_code in REFUSALS:
            raise ItemError(f"refused: {said}")
        if response.status_code in BUSY or response.status_code >= 500:
            raise _Fault(said, gone=response.status_code in BUSY)
        raise WorkerError(f"{self._where}: {said}: mend the url")

    @property
    def _where(self) -> str:
        return f"{variable(self._name)}, {self._url.partition('?')[0]}"


class _Fault(Exception):  # noqa: N818 it never leaves this module
    """No answer, but another try may have one; ``gone`` if the server may not be there."""

    def __init__(self, cause: str, *, gone: bool) -> None:
        super().__init__(cause)
        self.gone = gone


def variable(name: str) -> str:
    """Return the environment variable that holds the url of a scorer: HPSv2.1's is VIPO_SCORER_HPSV2_1."""
    return f"VIPO_SCORER_{re.sub('[^A-Z0-9]', '_', name.upper())}"


def _url(name: str) -> str:
    url = os.environ.get(variable(name), "").strip()
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in url
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(
            f"judge {name}: {variable(name)} holds no url: start the scorer and set it to an address such as "
            'http://host:8000/score that answers POST {"prompt", "image"} with {"score"}'
        )
    return url


def _pictures(medium: Media, most: int) -> Iterator[bytes]:
    """Yield an image as it ships, or the frames of a video as JPEG. Raises MediaError."""
    if medium.mime == media.mime_of("image"):
        media.probe(medium.data, medium.mime)
        yield medium.data
        return
    frames = media.decode(medium.data, medium.mime)
    for index in sampled(len(frames), most):
        yield media.encode(frames[index][None], fps=0).data


def _number(content: bytes) -> float:
    try:
        found = json.loads(content)["score"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise _Fault("its reply is not {'score': number}", gone=False) from None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise _Fault(f"its score is {found!r:.50}, no number", gone=False)
    return float(found)


def _line(text: str) -> str:
    return printable(text)[:LONGEST_REASON]
