"""From checks to a sentence: a template's gaps are filled with what the checks say, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.pools.english import NUMBERS, listed, noun, sentence, some, with_article
from pipeline.pools.grammar import HEADINGS, Slot, Template, words
from pipeline.records import Checks


def realise(template: Template, checks: Checks, wording: int = 0) -> str:
    """Return the sentence that says ``checks`` in the words of ``template``.

    Directions and camera moves are said in one of several ways: in that of number ``wording``.
    """
    return sentence(
        "".join(part if isinstance(part, str) else _fill(part, checks, wording) for part in template.parts)
    )


def _fill(slot: Slot, checks: Checks, wording: int) -> str:
    if slot.name in HEADINGS:
        return _heading(slot, checks, wording)
    if slot.name == "camera":
        return _camera(checks, wording)
    if fill := _FILLS.get(slot.name):
        return fill(slot, checks)
    value = checks.attribute(slot.name) or ""
    return with_article(value) if slot.article else value


def _one_of(options: Sequence[str], wording: int) -> str:
    return options[wording % len(options)]


def _group(slot: Slot, checks: Checks) -> str:
    group = checks.objects[slot.index]
    return some(group.name, group.count, group.colour)


def _counted(slot: Slot, checks: Checks) -> str:
    group = checks.objects[slot.index]
    return " ".join(filter(None, (NUMBERS[group.count], group.colour, noun(group.name, group.count))))


def _the(slot: Slot, checks: Checks) -> str:
    group = checks.objects[slot.index]
    return f"the {noun(group.name, group.count)}"


def _pronoun(slot: Slot, checks: Checks) -> str:
    return "it" if checks.objects[slot.index].count == 1 else "them"


def _agree(slot: Slot, checks: Checks) -> str:
    return slot.forms[checks.objects[slot.index].count != 1]


def _relation(slot: Slot, checks: Checks) -> str:
    relation = checks.relations[slot.index].relation
    return f"to the {relation}" if relation in ("left of", "right of") else relation


def _heading(slot: Slot, checks: Checks, wording: int) -> str:
    direction = checks.motions[0].direction
    if direction == "still":
        return "stays still" if checks.objects[0].count == 1 else "stay still"
    return f"{_agree(slot, checks)} {_one_of(words('headings')[slot.name][direction], wording)}"


def _camera(checks: Checks, wording: int) -> str:
    """The camera that films is no camera that is filmed."""
    seen = any(group.name == "camera" for group in checks.objects)
    said = _one_of(words("camera")[checks.motions[0].camera], wording)
    return f"the {'viewpoint' if seen else 'camera'} {said}"


def _text(_: Slot, checks: Checks) -> str:
    return f'"{checks.text}"'


def _words(_: Slot, checks: Checks) -> str:
    return "words" if " " in (checks.text or "") else "word"


def _worn(checks: Checks) -> str:
    said = {"glasses": "glasses", "hat": "a hat", "no glasses": "no glasses", "no hat": "no hat"}
    values = (checks.attribute("eyewear"), checks.attribute("headwear"))
    return listed(phrase for value, phrase in said.items() if value in values)


def _wearing(_: Slot, checks: Checks) -> str:
    return f", wearing {worn}" if (worn := _worn(checks)) else ""


def _and_wears(_: Slot, checks: Checks) -> str:
    return f" and wears {worn}" if (worn := _worn(checks)) else ""


_FILLS: dict[str, Callable[[Slot, Checks], str]] = {
    "group": _group,
    "counted": _counted,
    "the": _the,
    "pronoun": _pronoun,
    "agree": _agree,
    "relation": _relation,
    "text": _text,
    "words": _words,
    "wearing": _wearing,
    "and_wears": _and_wears,
}
