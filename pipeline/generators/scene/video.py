"""Videos: a painted world, objects that move through it, a camera, and what goes wrong on the way.

The world is painted once; every frame is a cut of it with the objects pasted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.config import Size
from pipeline.generators.base import Rendered, Request
from pipeline.generators.scene import footage, motion, paint, script
from pipeline.generators.scene.brush import Canvas
from pipeline.generators.scene.defects import Profile, draw_defects
from pipeline.generators.scene.motion import Actor, Camera
from pipeline.generators.scene.paint import Sprite
from pipeline.media.frames import Frames
from pipeline.records import Checks

_GHOSTS = ((5, 0.35), (3, 0.55))
"""How many frames ago (of 33), and how opaque at full severity, the oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shoot:
    """What to film and how large; the prompt's attributes set the scenery."""

    story: script.Script
    checks: Checks
    size: Size


def render(request: Request, profile: Profile) -> Rendered:
    """Film the prompt's objects and motion with the profile's defects. Raises ItemError."""
    checks, size = request.prompt.checks, request.size
    # Two streams: with the same seed, a flawed video is the flawless one plus its defects.
    looks, errors = np.random.Generator(np.random.PCG64(request.seed)).spawn(2)
    wanted = draw_defects(errors, profile, request.prompt.category, script.possible(checks))
    story, misread = script.write(checks, wanted, looks, errors)
    wrong = {defect.kind: defect.severity for defect in wanted}
    frames = _film(_Shoot(story=story, checks=checks, size=size), wrong, looks, errors)
    for kind, damage in footage.DAMAGES.items():
        if kind in wrong:
            damage(errors, frames, wrong[kind])
    shown = {defect.kind: defect for defect in misread}
    return Rendered(frames=frames, defects=tuple(shown.get(defect.kind, defect) for defect in wanted))


def _film(
    shoot: _Shoot, wrong: Mapping[str, float], looks: np.random.Generator, errors: np.random.Generator
) -> Frames:
    size = shoot.size
    view = motion.camera(shoot.story.camera, size)
    world = _world(shoot.checks, view, size, looks)
    actors = _acted(motion.stage(shoot.story, view, size, looks), wrong, size, errors)
    near = float(view.zoom.max())
    sprites = [paint.sprite(actor.name, actor.colour, round(actor.height * near)) for actor in actors]
    moments = motion.held(size.frames, wrong["freeze"], errors) if "freeze" in wrong else range(size.frames)
    frames = np.empty((size.frames, size.height, size.width, 3), np.uint8)
    for frame, moment in zip(frames, moments, strict=True):
        frame[:] = _cut(world, view, int(moment), size)
        for actor, sprite in zip(actors, sprites, strict=True):
            _show(frame, actor, sprite, view, int(moment), wrong.get("ghosting", 0.0))
    return frames


def _acted(
    groups: list[list[Actor]], wrong: Mapping[str, float], size: Size, errors: np.random.Generator
) -> list[Actor]:
    """Return the actors of all groups, trembling and jumping as the defects say."""
    if "teleport" in wrong:
        start = int(errors.integers(size.frames // 4, size.frames // 2 + 1))
        stop = start + max(1, size.frames // 5)
        groups = [motion.jump(group, wrong["teleport"], size, start, stop) for group in groups]
    actors = [actor for group in groups for actor in group]
    if "jitter" in wrong:
        actors = [motion.shake(actor, wrong["jitter"], size, errors) for actor in actors]
    return actors


def _world(checks: Checks, view: Camera, size: Size, rng: np.random.Generator) -> Canvas:
    """Paint all that the camera will see: wider for a pan, larger for a zoom."""
    style, light, place = (checks.attribute(name) or "" for name in ("style", "light", "place"))
    zoom = float(view.zoom.max())
    width = round(size.width * zoom) + int(np.ptp(view.pan))
    return paint.background(rng, style, light, place, width, round(size.height * zoom))


def _cut(world: Canvas, view: Camera, moment: int, size: Size) -> Canvas:
    """Return what the camera sees of the world."""
    near = float(view.zoom.max())
    if near == 1:
        left = int(view.pan[moment] - view.pan.min())
        return world[:, left : left + size.width]
    share = float(view.zoom[moment]) / near
    place = np.array([[1 / share, 0, 0], [0, 1 / share, 0]])
    place[:, 2] = (np.array(world.shape[1::-1]) - np.array([size.width, size.height]) / share) / 2
    return np.asarray(
        cv2.warpAffine(
            world, place, (size.width, size.height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        ),
        np.uint8,
    )


def _show(frame: Canvas, actor: Actor, sprite: Sprite, view: Camera, moment: int, ghosting: float) -> None:
    share = float(view.zoom[moment] / view.zoom.max())
    if share < 1:
        shrunk = cv2.resize(sprite, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        sprite = np.asarray(shrunk, np.uint8)
    for ago, opacity in _GHOSTS if ghosting else ():
        past = actor.path[max(0, moment - max(1, round(ago * len(actor.path) / 33)))]
        faint = sprite.copy()
        faint[..., 3] = (faint[..., 3] * (0.05 + opacity * ghosting)).astype(np.uint8)
        paint.paste(frame, faint, *past)
    paint.paste(frame, sprite, *actor.path[moment])
