"""Text of unknown origin: prompts of users, what a model has read in a picture, what a server says."""

from __future__ import annotations

import json
import re

_MARK = re.compile(r"[<\[](?=[^\s<>\[\]][^<>\[\]]*[>\]])")


def inert(text: str) -> str:
    """Return ``text`` with a space in whatever looks like a mark of a chat template, such as <|im_end|>.

    A server makes tokens of the whole conversation at once: a mark in a text would end the message that
    holds it, or stand for a medium that is not there.
    """
    return _MARK.sub(lambda found: f"{found[0]} ", text)


def quoted(text: str) -> str:
    """Return ``text``, inert, in quotes that nothing in it can close."""
    return json.dumps(inert(text), ensure_ascii=False)


def printable(text: str) -> str:
    """Return ``text`` as one line of characters that show."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
