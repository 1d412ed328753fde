"""The table of judges: one row a judge; nothing else in the project knows a judge's name."""

from __future__ import annotations

from pipeline.judges.base import Judge, JudgeSpec
from pipeline.records import Modality


def _measured(
    name: str, modality: Modality, measure: str, *, margin: float, scale: float, seconds: float | None = None
) -> JudgeSpec:
    options: dict[str, float | str] = {"measure": measure, "margin": margin, "scale": scale}
    rated = seconds or {"image": 0.03, "video": 0.2}[modality]
    return JudgeSpec(name=name, family="measured", modality=modality, seconds=rated, options=options)


_ROWS = (
    # alignment
    _measured("objects-pieces", "image", "objects:pieces", margin=0.15, scale=0.1),
    _measured("objects-outlines", "image", "objects:outlines", margin=0.15, scale=0.1),
    _measured("objects-palette", "image", "objects:palette", margin=0.15, scale=0.1),
    # text_rendering
    _measured("text-spelling", "image", "text:spelling", margin=0.2, scale=0.1, seconds=0.2),
    _measured("text-legibility", "image", "text:legibility", margin=0.2, scale=0.1),
    _measured("text-layout", "image", "text:layout", margin=0.2, scale=0.1),
    # composition
    _measured("composition-frame", "image", "composition:frame", margin=0.2, scale=0.1),
    _measured("composition-balance", "image", "composition:balance", margin=0.2, scale=0.1),
    _measured("composition-calm", "image", "composition:calm", margin=0.2, scale=0.1),
    # portrait
    _measured("face-symmetry", "image", "face:symmetry", margin=0.4, scale=0.2),
    _measured("face-features", "image", "face:features", margin=0.35, scale=0.15),
    _measured("face-template", "image", "face:template", margin=0.35, scale=0.15),
    # aesthetics
    _measured("quality-pixels", "image", "quality:pixels", margin=0.3, scale=0.15),
    _measured("quality-spectrum", "image", "quality:spectrum", margin=0.3, scale=0.15),
    _measured("quality-information", "image", "quality:information", margin=0.3, scale=0.15),
    # motion_quality
    _measured("motion-trajectory", "video", "motion:trajectory", margin=0.25, scale=0.15),
    _measured("motion-cadence", "video", "motion:cadence", margin=0.25, scale=0.15),
    _measured("motion-flow", "video", "motion:flow", margin=0.25, scale=0.15),
    # video_alignment
    _measured("video-pieces", "video", "video_objects:pieces", margin=0.25, scale=0.15),
    _measured("video-outlines", "video", "video_objects:outlines", margin=0.25, scale=0.15),
    _measured("video-palette", "video", "video_objects:palette", margin=0.25, scale=0.15),
    # visual_quality
    _measured("video-pixels", "video", "video_quality:pixels", margin=0.25, scale=0.15),
    _measured("video-spectrum", "video", "video_quality:spectrum", margin=0.25, scale=0.15),
    _measured("video-patches", "video", "video_quality:patches", margin=0.25, scale=0.15),
)

JUDGES: dict[str, JudgeSpec] = {row.name: row for row in _ROWS}


def make_judge(spec: JudgeSpec) -> Judge:
    """Return the adapter of the spec's family, not yet opened."""
    from pipeline.judges.measured import MeasuredJudge

    return {"measured": MeasuredJudge}[spec.family](spec)
