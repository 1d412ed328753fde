"""What a prompt says, as questions that one image or video answers with yes or no.

As in TIFA (Hu et al. 2023) and DSG (Cho et al. 2024) one fact a question, so that one mistake costs one
answer; the first asks for the prompt as a whole, as VQAScore (Lin et al. 2024) does, and stands alone where
nothing else is known of the prompt.
"""

from __future__ import annotations

from pipeline.judges.untrusted import quoted
from pipeline.media.symbols import OBJECTS
from pipeline.records import Checks, Modality, MotionCheck, ObjectCheck, RelationCheck

_MOVES = {"left": "to the left", "right": "to the right", "up": "upwards", "down": "downwards"}


def yes_no(prompt: str, checks: Checks, modality: Modality) -> tuple[str, ...]:
    """Return the questions to one side; each is right when it is answered with yes."""
    asked = [f"Does the {modality} show what this prompt says? {quoted(prompt)}"]
    names = [group.name for group in checks.objects]
    for group in checks.objects:
        asked += _of_group(group, modality, alone=names.count(group.name) == 1)
    asked += [_of_relation(relation, checks) for relation in checks.relations]
    for motion in checks.motions:
        asked += _of_motion(motion, checks)
    if checks.text is not None:
        asked.append(f"Does the {modality} show the text {quoted(checks.text)}, spelt exactly so?")
    return tuple(dict.fromkeys(asked))


def _of_group(group: ObjectCheck, modality: Modality, *, alone: bool) -> list[str]:
    """Ask for kind, number and colour apart; of two groups of a kind only the colour tells which is meant."""
    kind = group.name if alone or not group.colour else f"{group.colour} {group.name}"
    asked = [f"Does the {modality} show at least one {kind}?"]
    if alone or group.colour:
        asked.append(f"{_be(group)} there exactly {group.count} {_noun(group, coloured=not alone)}?")
    if alone and group.colour:
        those = _noun(group, coloured=False)
        asked.append(
            f"Is the {those} {group.colour}?" if group.count == 1 else f"Are all {those} {group.colour}?"
        )
    return asked


def _of_relation(relation: RelationCheck, checks: Checks) -> str:
    subject, other = checks.objects[relation.subject], checks.objects[relation.object]
    return f"{_be(subject)} the {_noun(subject)} {relation.relation} the {_noun(other)}?"


def _of_motion(motion: MotionCheck, checks: Checks) -> list[str]:
    moving = checks.objects[motion.object]
    do = "Does" if moving.count == 1 else "Do"
    if motion.direction == "still":
        subject = f"{do} the {_noun(moving)} stay in place?"
    else:
        subject = f"{do} the {_noun(moving)} move {_MOVES[motion.direction]}?"
    camera = (
        "Does the camera stand still?" if motion.camera == "static" else f"Does the camera {motion.camera}?"
    )
    return [subject, camera]


def _noun(group: ObjectCheck, *, coloured: bool = True) -> str:
    """Return "red cars"; a name that the vocabulary lacks keeps its one form."""
    name = group.name if group.count == 1 else OBJECTS.get(group.name, group.name)
    return f"{group.colour} {name}" if group.colour and coloured else name


def _be(group: ObjectCheck) -> str:
    return "Is" if group.count == 1 else "Are"
