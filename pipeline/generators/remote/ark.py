"""Seedance 1.0 through BytePlus ModelArk (Volcengine Ark speaks the same: set ARK_BASE_URL).

Taken from https://www.volcengine.com/docs/82379/1520757, 1521309 and 1521675 (create, retrieve and list a
video task; read in a stored copy of early 2026) and the same pages of https://docs.byteplus.com/en/docs/ModelArk:
POST ``contents/generations/tasks`` with a bearer key, parameters in the body rather than in the prompt,
``id``, GET ``contents/generations/tasks/<id>``, ``status`` queued, running, succeeded, failed, expired or
cancelled, ``content.video_url`` valid for 24 hours, tasks listed for 7 days with their ``seed``, ``model``
and ``created_at``, 16:9 as 864x480, 1248x704 or 1920x1088, 24 frames a second, 2 to 12 s, seeds of 32 bits,
``execution_expires_after``; error codes from page 1299023; 10 tasks at a time (page 1330310). That a video
of 5 s has 121 frames and is billed for them was read in the notes of someone who measured it.

Could not be verified, since no call was made: in which order tasks are listed, how soon a new one is, and
whether looking a task up again renews the signature of its address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.errors import ItemError
from pipeline.generators.base import GeneratorSpec, Request
from pipeline.generators.remote.dialect import SEEDS, Answer, dig, fitting, listed, picture, seconds

TASKS = "contents/generations/tasks"
FPS = 24
LENGTHS = range(2, 13)
SIZES = {"480p": (864, 480), "720p": (1248, 704), "1080p": (1920, 1088)}

EXPIRES = 3600
"""Seconds after which the service gives a task up, the least it allows; what it gives up is not charged."""

COMMAND = re.compile(r"(^|\s)--\w")
"""An order within the prompt, such as --dur 12: the service would heed it and charge for it."""

PAGE = 100
PAGES = 500
SKEW = 300.0
"""Seconds by which its clock may be behind ours."""


class Ark:
    """``spec.options``: ``model`` and ``resolution``; always 16:9, never with a watermark."""

    name = "ModelArk"
    variable = "ARK"
    address = "https://ark.ap-southeast.bytepluses.com/api/v3"
    domain = ""
    per_minute = 60.0

    def header(self, key: str) -> tuple[str, str]:
        """Return the header that carries the key."""
        return "Authorization", f"Bearer {key}"

    def order(self, spec: GeneratorSpec, request: Request) -> tuple[str, Mapping[str, Any]]:
        """Return path and body of a submission. Raises ItemError for what Seedance does not make."""
        resolution = str(spec.options["resolution"])
        fitting(request.size, SIZES[resolution])
        if COMMAND.search(request.prompt.text):
            raise ItemError("the prompt holds '--', which the service reads as an order: write it otherwise")
        content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt.text}]
        if request.source is not None:
            url = {"url": f"data:image/jpeg;base64,{picture(request.source)}"}
            content.append({"type": "image_url", "image_url": url, "role": "first_frame"})
        return TASKS, {
            "model": spec.options["model"],
            "content": content,
            "resolution": resolution,
            "ratio": "16:9",
            "duration": seconds(request.size, LENGTHS, FPS),
            "seed": request.seed % SEEDS,
            "watermark": False,
            "execution_expires_after": EXPIRES,
        }

    def operation(self, answer: Any) -> str | None:
        """Return the task's id."""
        task = dig(answer, "id")
        return task if isinstance(task, str) else None

    def path(self, operation: str) -> str:
        """Return where a task is looked up."""
        return f"{TASKS}/{operation}"

    def result(self, answer: Any) -> str | None:
        """Return the address of the finished video. Raises ItemError with the service's own reason."""
        status = dig(answer, "status")
        if status == "succeeded":
            url = dig(answer, "content", "video_url")
            if isinstance(url, str):
                return url
        if status in ("succeeded", "failed", "expired", "cancelled"):
            code, message = dig(answer, "error", "code"), dig(answer, "error", "message")
            raise ItemError(f"the service made no video: {status}: {code or ''} {message or ''}")
        return None

    def find(
        self, get: Callable[[str], Any], spec: GeneratorSpec, request: Request, since: float
    ) -> str | None:
        """Return the task of this model and seed that was created since: no other run asks for the same."""
        model, seed = str(spec.options["model"]), request.seed % SEEDS
        for page in range(1, PAGES + 1):
            items = listed(get(f"{TASKS}?page_num={page}&page_size={PAGE}"), "items")
            for item in items:
                ours = dig(item, "seed") == seed and str(dig(item, "model")).startswith(model)
                created = dig(item, "created_at")
                if ours and isinstance(created, (int, float)) and created >= since - SKEW:
                    return self.operation(item)
            if len(items) < PAGE:
                break
        return None

    def unfit(self, answer: Answer) -> bool:
        """Say whether it is the account: key, rights, an unpaid bill, a model that is not open."""
        code = str(dig(answer.json, "error", "code"))
        return answer.status in (401, 402, 403, 404) or code.startswith("InvalidEndpoint")
