"""Prompts said anew: which words must stay, and how a text is checked against the prompt that it rewrites.

Checked are strings alone, and strictly: what cannot be seen to have survived counts as lost. Every object
group must be named by its number, colour and noun in one phrase, every relation must stand between its two
groups, lettering must be the same to the letter, and nothing that the prompt lacks may come in: no object,
colour, number, direction, negation or quotation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache

from pipeline.media.symbols import COLOURS, OBJECTS
from pipeline.pools.english import NUMBERS
from pipeline.pools.grammar import words
from pipeline.records import Attribute, Checks, MotionCheck, ObjectCheck, Prompt, RelationCheck

VERSION = 1
"""Rises whenever other answers pass than before."""

GAP = 80
"""Most characters of free prose between two phrases that must stay."""

_PROSE = "[A-Za-z ,.;:'()-]"
_SPECIAL = re.compile(r"([\\.^$*+?{}\[\]|()])")
_MASKED = "\0"

_COUNTS = {word: number for number, word in enumerate(NUMBERS)} | {"a": 1, "an": 1, "zero": 0}
_COUNTS |= {"ten": 10, "eleven": 11, "twelve": 12}
_ARTICLES = ("the", "this", "these", "that", "those", "its", "their", "his", "her")
_WORDS = {
    "joining": """and or but of with in on at by to from as near beside under over against for while is are
        was were which that where""",
    "colour": """white grey gray silver gold golden violet magenta cyan crimson scarlet turquoise beige
        maroon navy indigo lavender ivory bronze copper blond colourless""",
    "number": """pair pairs couple duo trio quartet dozen dozens several many multiple few both another
        numerous countless hundred hundreds thousand thousands twin twins double triple""",
    "direction": """left right above below beneath underneath top bottom up down upward upwards downward
        downwards leftward leftwards rightward rightwards still pan pans panning panned zoom zooms zooming
        zoomed higher lower upper""",
    "negation": "no not never none nor neither without nothing absent lacking missing cannot",
}
_JOINING = frozenset(_WORDS["joining"].split())
_COLOURS = frozenset((*COLOURS, *_WORDS["colour"].split()))
_LETTERS = "letters|letter|lettering|typeface|type|font|script|characters|text|writing|words|paint"
_HEADS = {"hair": "hair", "skin": "skin", "lettering": _LETTERS}

_TERMS = {
    *_COLOURS,
    *_COUNTS,
    *(word for kind in ("number", "direction", "negation") for word in _WORDS[kind].split()),
}
_TERM = re.compile(rf"\b(?:{'|'.join(sorted(_TERMS - {'a', 'an'}))}|\d+)\b|n't\b|[\"“”«»„]", re.IGNORECASE)


_MORE = re.compile(r"\b(?:more|another|extra|additional|second)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Mention:
    """An object named: [start, end) with its number and colours; ``count`` None where none is said."""

    start: int
    end: int
    name: str
    plural: bool | None
    count: int | None
    colours: tuple[str, ...]

    def fits(self, group: ObjectCheck) -> bool:
        """Say whether this may speak of ``group``."""
        return (
            self.name == group.name
            and self.plural in (None, group.count != 1)
            and self.count in (None, group.count)
            and all(colour == group.colour for colour in self.colours)
        )

    def names(self, group: ObjectCheck) -> bool:
        """Say whether this says all there is to say of ``group``."""
        return self.fits(group) and self.count is not None and (not group.colour or bool(self.colours))


@dataclass(slots=True)
class _Reading:
    """What a text says of what ``checks`` ask for: where each is said, and what else is said."""

    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    extra: Counter[str] = field(default_factory=Counter)


def lost(text: str, prompt: Prompt) -> str | None:
    """Return the first thing that ``text`` lacks, contradicts or adds to ``prompt``; None if nothing."""
    was, now = _read(prompt.text, prompt.checks), _read(text, prompt.checks)
    if now.faults:
        return now.faults[0]
    gone = [key for key in was.spans if key not in now.spans and not key.startswith("mover")]
    if gone:
        start, end = was.spans[gone[0]]
        return f"{gone[0]}: {prompt.text[start:end]!r} is not said"
    more = now.extra - was.extra
    return f"adds {min(more)!r}" if more else None


def checkable(prompt: Prompt) -> bool:
    """Say whether strings can tell if a text says what ``prompt`` does: something, and itself passes."""
    checks = prompt.checks
    return bool(checks.objects or checks.text or checks.attributes) and lost(prompt.text, prompt) is None


def phrases(prompt: Prompt) -> tuple[str, ...]:
    """Return the phrases of a checkable prompt that must stay word for word, in its order."""
    kept: list[tuple[int, int]] = []
    for start, end in sorted(_read(prompt.text, prompt.checks).spans.values(), key=lambda s: (s[0], -s[1])):
        if kept and start < kept[-1][1]:
            continue
        if kept and not prompt.text[kept[-1][1] : start].strip():
            kept[-1] = kept[-1][0], end
        else:
            kept.append((start, end))
    return tuple(prompt.text[start:end] for start, end in kept)


def constraint(prompt: Prompt) -> str:
    """Return the regular expression of one line of prose with the phrases of ``prompt`` in its order."""
    between = rf"[ ,;:.)](?:{_PROSE}{{0,{GAP}}}[ (])?"
    kept = between.join(_either_case(phrase) for phrase in phrases(prompt))
    return rf"(?:{_PROSE}{{0,{GAP}}}[ (])?{kept}(?:[ ,;:.)]{_PROSE}{{0,{GAP}}})?[.]"


def carried(text: str, root: Prompt, perturbed: Prompt) -> str | None:
    """Return ``text``, which rewrites ``root``, with the one change that makes ``perturbed`` of it.

    None where that would take more than other phrases in the same places: a verb that has to agree, or
    content that is not found again.
    """
    was, now = _read(root.text, root.checks), _read(perturbed.text, perturbed.checks)
    groups = list(zip(root.checks.objects, perturbed.checks.objects, strict=False))
    moves = zip(root.checks.motions, perturbed.checks.motions, strict=False)
    alike = all((one.count == 1) == (other.count == 1) for one, other in groups)
    alike = alike and all((one.direction == "still") == (other.direction == "still") for one, other in moves)
    if was.spans.keys() != now.spans.keys() or not alike:
        return None
    changes = {}
    for one, other in groups:
        changes[_noun(one)] = _noun(other)
    for key, span in was.spans.items():
        changes[root.text[slice(*span)].casefold()] = perturbed.text[slice(*now.spans[key])]
    said = _replaced(text, {old: new for old, new in changes.items() if old != new.casefold()})
    return None if lost(said, perturbed) else said


def _replaced(text: str, changes: dict[str, str]) -> str:
    """Replace all at once; a phrase that begins a sentence goes on doing so."""
    if not changes:
        return text

    def new(found: re.Match[str]) -> str:
        said = found[0].casefold()
        chosen = changes.get(said) or changes[re.sub(r"^an? ", "", said)]
        if not chosen[0].isalpha() or chosen[1:2].isupper():
            return chosen
        return (chosen[0].upper() if found[0][0].isupper() else chosen[0].lower()) + chosen[1:]

    # "no hat" takes the place of "a hat", article and all.
    old = (
        f"{'(?:an? )?' if changes[each].startswith('no ') else ''}{re.escape(each)}"
        for each in sorted(changes, key=len, reverse=True)
    )
    return re.sub(rf"(?<![\w-])(?:{'|'.join(old)})(?![\w-])", new, text, flags=re.IGNORECASE)


@lru_cache(maxsize=64)
def _read(text: str, checks: Checks) -> _Reading:
    """Read a text; nobody changes what this returns."""
    reading = _Reading()
    rest = _mask(text, _literal(text, checks, reading))
    for find in (_attributes, _motion):
        rest = _mask(rest, find(rest, checks, reading))
    placed = [(relation, found) for relation in _PLACED for found in _PLACED[relation].finditer(rest)]
    rest = _mask(rest, (found.span() for _, found in placed))
    mentions = list(_mentions(rest))
    _groups(mentions, checks, reading)
    _relations(rest, placed, mentions, checks, reading)
    _moving(mentions, checks, reading)
    own = [each for each in mentions if any(each.fits(group) for group in checks.objects)]
    said = [found for each in own for found in _MORE.finditer(rest, each.start, each.end)]  # "one more star"
    rest = _mask(rest, ((each.start, each.end) for each in own))
    reading.extra.update(found[0].casefold() for found in (*said, *_TERM.finditer(rest)))
    reading.extra.update(each.name for each in mentions if each not in own)
    return reading


def _literal(text: str, checks: Checks, reading: _Reading) -> Iterator[tuple[int, int]]:
    """Find the text to render, in quotes and the same to the letter."""
    if checks.text is None:
        return
    found = list(re.finditer(rf"([\"“]){re.escape(checks.text)}[\"”]", text))
    if found:
        reading.spans["text"] = found[0].span()
    else:
        reading.faults.append(f"the text {checks.text!r} is not said")
    yield from (each.span() for each in found)


def _attributes(text: str, checks: Checks, reading: _Reading) -> Iterator[tuple[int, int]]:
    """Find what attributes ask for, the longest first: one may be part of another."""
    masked = text
    for each in sorted(checks.attributes, key=lambda each: -len(each.value)):
        if not each.value:
            continue
        for key, pattern in _ways(each):
            found = [match.span() for match in re.finditer(pattern, masked, re.IGNORECASE)]
            masked = _mask(masked, found)
            yield from found
            if found:
                reading.spans[key] = found[0]
                break


def _ways(attribute: Attribute) -> Iterator[tuple[str, str]]:
    """Yield the ways in which an attribute may be said; one of hair or letters next to what has it."""
    value = re.escape(attribute.value)
    if attribute.name in _HEADS:
        yield attribute.name, rf"\b{value}(?: [\w-]+){{0,2}} (?:{_HEADS[attribute.name]})\b"
        yield f"in the {attribute.name}", rf"\bin {value}\b"
    yield f"the {attribute.name}", rf"(?<![\w-]){value}(?![\w-])"


def _motion(text: str, checks: Checks, reading: _Reading) -> Iterator[tuple[int, int]]:
    """Find how objects and camera move. A camera that stands still need not be named."""
    for number, motion in enumerate(checks.motions):
        # The camera first: it may sweep to a side too.
        for what, pattern in (("camera", _camera(motion)), ("motion", _heading(motion))):
            found = [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]
            if found:
                reading.spans[f"{what} {number}"] = found[0]
            elif what == "motion" or motion.camera != "static":
                said = motion.direction if what == "motion" else motion.camera
                reading.faults.append(f"the {what} {said!r} is not said")
            text = _mask(text, found)
            yield from found


@cache
def _heading(motion: MotionCheck) -> str:
    if motion.direction == "still":
        return r"\b(?:stays?|remains?|stands?) still\b"
    said = (phrase for each in words("headings").values() for phrase in each[motion.direction])
    return rf"\b(?:{_any(said)})\b(?! of\b)"


@cache
def _camera(motion: MotionCheck) -> str:
    return rf"\b(?:the )?(?:camera|viewpoint) (?:{_any(words('camera')[motion.camera])})\b"


_PLACED = {
    side: re.compile(rf"\b(?:to the )?{side}\b", re.IGNORECASE)
    for side in ("left of", "right of", "above", "below")
}


_PRONOUN = re.compile(r" (?:it|them)\b", re.IGNORECASE)


@cache
def _nouns() -> tuple[re.Pattern[str], dict[str, str]]:
    """Return what finds objects by name, and the name of every form."""
    forms = {form.casefold(): name for name, plural in OBJECTS.items() for form in (plural, name)}
    return re.compile(rf"(?<![\w-])(?:{_any(forms)})(?![\w-])", re.IGNORECASE), forms


def _mentions(text: str) -> Iterator[_Mention]:
    pattern, forms = _nouns()
    for found in pattern.finditer(text):
        said = found[0].casefold()
        name = forms[said]
        start, count, colours = _before(text, found.start())
        plural = None if name == OBJECTS[name] else said != name
        yield _Mention(start, found.end(), name, plural, count, colours)


def _before(text: str, end: int) -> tuple[int, int | None, tuple[str, ...]]:
    """Read the words before a noun back to its number or article: where they begin, number, colours."""
    colours: list[str] = []
    start = end
    for _ in range(5):
        found = re.search(r"([\w'-]+) +$", text[:start])
        word = found[1].casefold() if found else ""
        if not found or word in _JOINING:
            break
        if word in _ARTICLES or word in _COUNTS or word.isdigit():
            count = None if word in _ARTICLES else _COUNTS.get(word, int(word) if word.isdecimal() else None)
            return found.start(), count, tuple(colours)
        if word in _COLOURS:
            colours.append(word)
        start = found.start()
    return (start if colours else end), None, tuple(colours)


def _groups(mentions: list[_Mention], checks: Checks, reading: _Reading) -> None:
    """Every group must be named in full once, and no mention may contradict all groups of its kind."""
    kinds = {group.name for group in checks.objects}
    for each in mentions:
        if each.name in kinds and not any(each.fits(group) for group in checks.objects):
            reading.faults.append(f"{each.name}: another number or colour is said")
    for number, group in enumerate(checks.objects):
        full = [each for each in mentions if each.names(group)]
        if full:
            reading.spans[f"object {number}"] = full[0].start, full[0].end
        else:
            colour = f"{group.colour} " if group.colour else ""
            reading.faults.append(f"{group.count} {colour}{group.name} is not said")
        if not group.count and sum(each.fits(group) for each in mentions) > 1:
            reading.faults.append(f"{group.name}: is said to be there and not to be there")


def _relations(
    text: str,
    placed: list[tuple[str, re.Match[str]]],
    mentions: list[_Mention],
    checks: Checks,
    reading: _Reading,
) -> None:
    """Every relation must be said of its two groups, and none of others."""
    for side, found in placed:
        said = [
            number
            for number, relation in enumerate(checks.relations)
            if relation.relation == side and _between(text, found, mentions, relation, checks)
        ]
        for number in said:
            reading.spans.setdefault(f"relation {number}", (found.start(), _end(text, found, mentions)))
        if not said:
            reading.extra[side] += 1
    for number, relation in enumerate(checks.relations):
        if f"relation {number}" not in reading.spans:
            subject, other = checks.objects[relation.subject].name, checks.objects[relation.object].name
            reading.faults.append(f"{subject} {relation.relation} {other} is not said")


def _end(text: str, found: re.Match[str], mentions: list[_Mention]) -> int:
    """Return where a relation ends: after a pronoun or "the stars", which stand for what was named before."""
    pronoun = _PRONOUN.match(text, found.end())
    again = (m.end for m in mentions if m.start == found.end() + 1 and m.count is None)
    return pronoun.end() if pronoun else next(again, found.end())


def _between(
    text: str, found: re.Match[str], mentions: list[_Mention], relation: RelationCheck, checks: Checks
) -> bool:
    """Say whether the nearest object before is the subject and the nearest after, or a pronoun, the other."""
    subject, other = checks.objects[relation.subject], checks.objects[relation.object]
    before = [each for each in mentions if each.end <= found.start()]
    after = [each for each in mentions if each.start >= found.end()]
    if not before or not before[-1].fits(subject):
        return False
    if _PRONOUN.match(text, found.end()):
        return any(each.fits(other) for each in before)
    return bool(after) and after[0].fits(other)


def _moving(mentions: list[_Mention], checks: Checks, reading: _Reading) -> None:
    """What moves must be the last object named before, or be placed by that one."""
    for number, motion in enumerate(checks.motions):
        start, _ = reading.spans.get(f"motion {number}", (0, 0))
        near = {motion.object} | {each.object for each in checks.relations if each.subject == motion.object}
        before = [each for each in mentions if each.end <= start]
        if start and not (before and any(before[-1].fits(checks.objects[place]) for place in near)):
            reading.faults.append(f"the motion {motion.direction!r} is said of something else")
        elif start and before[-1].count is None:
            reading.spans[f"mover {number}"] = before[-1].start, before[-1].end


def _noun(group: ObjectCheck) -> str:
    return group.name if group.count == 1 else OBJECTS[group.name]


def _mask(text: str, spans: Iterable[tuple[int, int]]) -> str:
    for start, end in list(spans):
        text = f"{text[:start]}{_MASKED * (end - start)}{text[end:]}"
    return text


def _any(options: Iterable[str]) -> str:
    return "|".join(re.escape(each) for each in sorted(options, key=len, reverse=True))


def _either_case(phrase: str) -> str:
    """Return a pattern of ``phrase`` that may begin a sentence, or not."""
    escaped = _SPECIAL.sub(r"\\\1", phrase)
    if phrase[0].isascii() and phrase[0].isalpha() and (len(phrase) == 1 or not phrase[1].isupper()):
        return f"[{phrase[0].upper()}{phrase[0].lower()}]{escaped[1:]}"
    return escaped
