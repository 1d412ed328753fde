"""The table of judges: one row a judge; nothing else in the project knows a judge's name.

Every vision-language model has three rows: asked for its choice, asked for reasons first (``/reason``), asked
what a prompt says as questions of yes or no (``/checklist``). ``seconds`` of GPU time an answer for two
images of 1024 px, at the limit of an H200. ``disk`` and ``memory`` (of all GPUs together, with room for
32,000 tokens) are estimates from the numbers of parameters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from pipeline.judges.base import Hosting, Judge, JudgeSpec
from pipeline.records import Modality
from pipeline.weights import Weights

FRAMES = 8
"""Frames of a video that a model is shown."""

ROOM = json.dumps({"image": 2 * FRAMES, "video": 0})
SERVER = ("--max-model-len", "32768", "--limit-mm-per-prompt", ROOM, "--enable-prefix-caching")
TENSOR_PARALLEL = ("--mm-encoder-tp-mode", "data", "--mm-processor-cache-type", "shm")
EXPERTS = ("--enable-expert-parallel",)  # whole experts: FP8 blocks of one may not divide evenly

LONGER = {"choice": 1.0, "reason": 3.6, "checklist": 3.0}
"""How to ask -> how much longer that takes than a choice."""


def _measured(
    name: str, modality: Modality, measure: str, *, margin: float, scale: float, seconds: float | None = None
) -> JudgeSpec:
    options: dict[str, float | str] = {"measure": measure, "margin": margin, "scale": scale}
    rated = seconds or {"image": 0.03, "video": 0.2}[modality]
    return JudgeSpec(name=name, family="measured", modalities=(modality,), seconds=rated, options=options)


def _models(
    name: str,
    repo: str,
    *,
    disk: float,
    memory: float,
    seconds: float,
    gpus: int = 1,
    licence: str = "Apache-2.0",
    server: tuple[str, ...] = (),
    **options: float | str,
) -> Iterator[JudgeSpec]:
    """Yield the rows of a model that vLLM serves, for images and videos."""
    for ask, longer in LONGER.items():
        yield JudgeSpec(
            name=name if ask == "choice" else f"{name}/{ask}",
            family="vlm",
            modalities=("image", "video"),
            weights=Weights(repo=repo, disk=disk, memory=memory),
            licence=licence,
            gpus=float(gpus),
            seconds=seconds * longer,
            server=(*SERVER, *(TENSOR_PARALLEL if gpus > 1 else ()), *server),
            options={"ask": ask, "video": "frames", "frames": FRAMES, **options},
        )


def _scorer(
    name: str,
    kind: str,
    repo: str | None = None,
    *,
    disk: float = 0.0,
    memory: float = 0.0,
    licence: str = "Apache-2.0",
    scale: float,
    seconds: float,
) -> JudgeSpec:
    """A reward model: a number for each side; ``kind`` http has a server of its own (scorer_http.py)."""
    return JudgeSpec(
        name=name,
        family="scorer",
        modalities=("image",),
        weights=Weights(repo=repo, disk=disk, memory=memory) if repo else None,
        licence=licence,
        gpus=1.0 if repo else 0.0,
        seconds=seconds,
        options={"scorer": kind, "margin": 0.0, "scale": scale},
    )


def _null(name: str, seconds: float) -> JudgeSpec:
    """Takes ``seconds`` and looks at nothing: for load tests."""
    options: dict[str, float | str] = {"agree": 0.7, "seconds": seconds}
    return JudgeSpec(
        name=name, family="null", modalities=("image", "video"), seconds=seconds, options=options
    )


_QWEN, _GLM, _INTERN = "Qwen/Qwen3-VL", "zai-org/GLM", "OpenGVLab/InternVL3_5"

_MODELS = (
    _models("Qwen3-VL-8B", f"{_QWEN}-8B-Instruct", disk=17.5, memory=30, seconds=0.056),
    _models("Qwen3-VL-8B-FP8", f"{_QWEN}-8B-Instruct-FP8", disk=10.6, memory=23, seconds=0.035),
    _models("Qwen3-VL-30B-A3B", f"{_QWEN}-30B-A3B-Instruct", disk=62, memory=74, seconds=0.034),
    _models("Qwen3-VL-30B-A3B-FP8", f"{_QWEN}-30B-A3B-Instruct-FP8", disk=32, memory=44, seconds=0.025),
    _models("Qwen3-VL-32B", f"{_QWEN}-32B-Instruct", disk=67, memory=85, seconds=0.202, gpus=2),
    _models("Qwen3-VL-32B-FP8", f"{_QWEN}-32B-Instruct-FP8", disk=36, memory=54, seconds=0.13),
    _models("Qwen3-VL-235B-A22B", f"{_QWEN}-235B-A22B-Instruct", disk=471, memory=520, seconds=0.149, gpus=8),
    _models(
        "Qwen3-VL-235B-A22B-FP8",
        f"{_QWEN}-235B-A22B-Instruct-FP8",
        disk=238,
        memory=290,
        seconds=0.1,
        gpus=4,
        server=EXPERTS,
    ),
    _models("Qwen2.5-VL-7B", "Qwen/Qwen2.5-VL-7B-Instruct", disk=16.6, memory=28, seconds=0.065),
    _models(
        "Qwen2.5-VL-72B",
        "Qwen/Qwen2.5-VL-72B-Instruct",
        disk=147,
        memory=190,
        seconds=0.62,
        gpus=4,
        licence="Qwen",
    ),
    _models("InternVL3.5-8B", f"{_INTERN}-8B-HF", disk=17, memory=30, seconds=0.06),
    _models("InternVL3.5-38B", f"{_INTERN}-38B-HF", disk=77, memory=100, seconds=0.23, gpus=2),
    _models(
        "GLM-4.6V-Flash",
        f"{_GLM}-4.6V-Flash",
        disk=20.6,
        memory=34,
        seconds=0.06,
        licence="MIT",
        thinking="off",
    ),
    _models(
        "GLM-4.6V-FP8",
        f"{_GLM}-4.6V-FP8",
        disk=110,
        memory=150,
        seconds=0.09,
        gpus=4,
        licence="MIT",
        server=EXPERTS,
        thinking="off",
    ),
    _models(
        "GLM-4.5V",
        f"{_GLM}-4.5V",
        disk=215,
        memory=260,
        seconds=0.1,
        gpus=4,
        licence="MIT",
        thinking="off",
    ),
)

_ROWS = (
    *(row for rows in _MODELS for row in rows),
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
    _null("null/quick", 0.0),
    # reward models, for `vipo audit conflict`; licences as far as they are stated
    _scorer(
        *("PickScore", "clip", "yuvalkirstain/PickScore_v1"),
        disk=3.94,
        memory=6,
        licence="MIT",
        scale=1.0,
        seconds=0.02,
    ),
    _scorer(
        *("CLIP-L", "clip", "openai/clip-vit-large-patch14"),
        disk=1.71,
        memory=3,
        licence="MIT",
        scale=1.0,
        seconds=0.01,
    ),
    _scorer(
        *("LAION-aesthetic", "aesthetic", "shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE"),
        disk=1.22,
        memory=2,
        scale=0.5,
        seconds=0.01,
    ),
    _scorer("HPSv2.1", "http", scale=0.01, seconds=0.03),
    _scorer("HPSv3", "http", licence="MIT", scale=1.0, seconds=0.2),
    _scorer("ImageReward", "http", scale=1.0, seconds=0.05),
)

JUDGES: dict[str, JudgeSpec] = {row.name: row for row in _ROWS}


def make_judge(spec: JudgeSpec, hosting: Hosting) -> Judge:
    """Return the adapter of the spec's family, not yet opened; ``hosting`` says where a model answers."""
    match spec.family:
        case "measured":
            from pipeline.judges.measured import MeasuredJudge

            return MeasuredJudge(spec)
        case "vlm" if hosting.urls:
            from pipeline.judges.endpoint import EndpointJudge

            return EndpointJudge(spec, hosting.urls)
        case "vlm":
            from pipeline.judges.server import ServedJudge

            return ServedJudge(spec, hosting.vllm)
        case "null":
            from pipeline.judges.null import NullJudge

            return NullJudge(spec)
        case "scorer":
            from pipeline.judges.scorer import ScorerJudge

            return ScorerJudge(spec)
    raise ValueError(f"{spec.name}: no adapter for the family {spec.family!r}: add it to make_judge")
