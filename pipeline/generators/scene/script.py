"""What a video shall show: groups of objects, where each heads, what the camera does; and misreadings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.generators.scene import groups
from pipeline.generators.scene.groups import Piece, Plan
from pipeline.records import Checks, Defect, RelationCheck

OPPOSITE = {"pan left": "pan right", "pan right": "pan left", "zoom in": "zoom out", "zoom out": "zoom in"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """A group of objects that heads ``direction``, off its way by ``turn`` half turns (-1 to 1)."""

    pieces: tuple[Piece, ...]
    direction: str
    turn: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Casts in the order of their places: left to right if ``side_by_side``, else top to bottom."""

    casts: tuple[Cast, ...]
    side_by_side: bool
    camera: str


def possible(checks: Checks) -> frozenset[str]:
    """Return the kinds of defect that would show in a video of ``checks``."""
    moves = any(motion.direction != "still" for motion in checks.motions)
    films = any(motion.camera != "static" for motion in checks.motions)
    kinds = {"jitter", "teleport", "noise", "blur", "blocking", "bad_exposure", "flicker"}
    kinds |= groups.possible(checks)
    kinds |= {"wrong_direction", "wrong_camera"} if checks.motions else set()
    kinds |= {"freeze"} if moves or films else set()
    kinds |= {"ghosting"} if moves else set()
    return frozenset(kinds)


def write(
    checks: Checks, defects: Collection[Defect], looks: np.random.Generator, errors: np.random.Generator
) -> tuple[Script, tuple[Defect, ...]]:
    """Return the script for ``checks`` with the content ``defects``, and these as severe as they became.

    Raises ItemError for counts that cannot be drawn.
    """
    plan, done = groups.spoil(errors, groups.plan(looks, checks), defects)
    wrong = {defect.kind: defect.severity for defect in defects}
    directions, turns = _directions(checks, len(plan.groups)), [0.0] * len(plan.groups)
    camera = next((motion.camera for motion in checks.motions), "static")
    if "wrong_direction" in wrong:
        turns[_moving(directions)] = wrong["wrong_direction"] * (1 if errors.random() < 0.5 else -1)
        done = (*done, Defect(kind="wrong_direction", severity=wrong["wrong_direction"]))
    side_by_side, order = _order(plan, directions, looks)
    if "wrong_camera" in wrong:
        camera, severity = _misguided(camera, wrong["wrong_camera"], errors)
        done = (*done, Defect(kind="wrong_camera", severity=severity))
    casts = [Cast(pieces=plan.groups[i].pieces, direction=directions[i], turn=turns[i]) for i in order]
    return Script(casts=tuple(casts), side_by_side=side_by_side, camera=camera), done


def _directions(checks: Checks, count: int) -> list[str]:
    """Return where each group of the plan heads; some groups of the checks are not in the plan."""
    known = groups.drawable(checks)
    asked = {motion.object: motion.direction for motion in checks.motions}
    return [asked.get(index, "still") for index in known] or ["still"] * count


def _moving(directions: Sequence[str]) -> int:
    return next((index for index, direction in enumerate(directions) if direction != "still"), 0)


def _order(plan: Plan, directions: Sequence[str], looks: np.random.Generator) -> tuple[bool, list[int]]:
    """Return whether groups stand side by side, and their order: free paths where relations say nothing."""
    order = [int(index) for index in looks.permutation(len(plan.groups))]
    if not plan.relations:
        return directions[_moving(directions)] in ("up", "down"), order
    side_by_side = _across(plan.relations[0])
    for relation in [r for r in plan.relations if _across(r) == side_by_side]:
        first, last = relation.subject, relation.object
        if relation.relation in ("right of", "below"):
            first, last = last, first
        order.remove(first)
        order.insert(order.index(last), first)
    return side_by_side, order


def _across(relation: RelationCheck) -> bool:
    return relation.relation in ("left of", "right of")


def _misguided(asked: str, severity: float, errors: np.random.Generator) -> tuple[str, float]:
    """Return a wrong camera move and its real severity: a move missed is milder than the opposite move."""
    if asked == "static":
        return sorted(OPPOSITE)[int(errors.integers(len(OPPOSITE)))], 0.6
    return ("static", 0.4) if severity < 0.6 else (OPPOSITE[asked], 0.8)
