"""Veo 3 through the Gemini API.

Taken from https://ai.google.dev/gemini-api/docs/video (read in stored copies of 2025-09 to 2026-09): the
POST to ``models/<model>:predictLongRunning`` with ``instances`` and ``parameters``, the operation's ``name``,
GET ``<name>`` until ``done``, ``response.generateVideoResponse.generatedSamples[0].video.uri`` fetched with
the same ``x-goog-api-key`` and redirects followed; 24 frames a second, 4, 6 or 8 s, 720p or 1080p; videos are
kept for 2 days; a video that the safety filters block is not charged; ``seed`` is there for Veo 3, and helps
determinism without promising it. From Google's own SDK (googleapis/js-genai): the shape of a first frame,
``raiMediaFilteredReasons``, and lengths as numbers. From https://ai.google.dev/api and google.rpc: errors,
and RetryInfo among their details.

Could not be verified, since no call was made: that a video of 8 s has 192 frames; where the download
redirects to; how many submissions a minute an account has (10 is what is told of preview models). Nothing
in the documentation lets a client name a submission, so one whose answer is lost cannot be found again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.errors import ItemError
from pipeline.generators.base import GeneratorSpec, Request
from pipeline.generators.remote.dialect import SEEDS, Answer, dig, fitting, listed, picture, seconds

FPS = 24
LENGTHS = range(4, 9, 2)
SIZES = {"720p": (1280, 720), "1080p": (1920, 1080)}


class Gemini:
    """``spec.options``: ``model`` and ``resolution``; always 16:9. The sound of a video is not kept."""

    name = "Gemini API"
    variable = "GEMINI"
    address = "https://generativelanguage.googleapis.com/v1beta"
    domain = ".googleapis.com"
    per_minute = 10.0

    def header(self, key: str) -> tuple[str, str]:
        """Return the header that carries the key."""
        return "x-goog-api-key", key

    def order(self, spec: GeneratorSpec, request: Request) -> tuple[str, Mapping[str, Any]]:
        """Return path and body of a submission. Raises ItemError for what Veo does not make."""
        resolution = str(spec.options["resolution"])
        fitting(request.size, SIZES[resolution])
        instance: dict[str, Any] = {"prompt": request.prompt.text}
        if request.source is not None:
            instance["image"] = {"bytesBase64Encoded": picture(request.source), "mimeType": "image/jpeg"}
        parameters = {
            "aspectRatio": "16:9",
            "resolution": resolution,
            "durationSeconds": seconds(request.size, LENGTHS, FPS),
            "seed": request.seed % SEEDS,
        }
        path = f"models/{spec.options['model']}:predictLongRunning"
        return path, {"instances": [instance], "parameters": parameters}

    def operation(self, answer: Any) -> str | None:
        """Return the operation's name, which is also its path."""
        name = dig(answer, "name")
        return name if isinstance(name, str) else None

    def path(self, operation: str) -> str:
        """Return where an operation is looked up."""
        return operation

    def result(self, answer: Any) -> str | None:
        """Return the address of the finished video. Raises ItemError with the service's own reason."""
        if not dig(answer, "done"):
            return None
        said = dig(answer, "response", "generateVideoResponse")
        uri = dig(said, "generatedSamples", 0, "video", "uri")
        if isinstance(uri, str):
            return uri
        reason = dig(answer, "error", "message") or dig(said, "raiMediaFilteredReasons", 0)
        raise ItemError(f"the service made no video: {reason or 'it gave no reason'}")

    def find(
        self, get: Callable[[str], Any], spec: GeneratorSpec, request: Request, since: float
    ) -> str | None:
        """Return None: operations do not tell what they were asked."""
        del get, spec, request, since
        return None

    def unfit(self, answer: Answer) -> bool:
        """Say whether it is the account: a wrong key is answered with 400, as is missing billing."""
        if answer.status != 400:
            return answer.status in (401, 402, 403, 404)
        reasons = [dig(detail, "reason") for detail in listed(answer.json, "error", "details")]
        return "API_KEY_INVALID" in reasons or dig(answer.json, "error", "status") == "FAILED_PRECONDITION"
