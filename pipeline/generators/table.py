"""The table of generators: one row a generator; nothing else in the project knows a model's name.

``Terms`` are of what a generator makes. permissive: it may train any model. research: terms follow it, such
as not to train a competing model (FLUX dev, Veo), or any but the maker's own (Stability, Hunyuan), or for
some uses only (OpenRAIL, Gemma's: they bind what is trained on outputs too).

``seconds`` an item on one H200: as published for models of that kind (FLUX.1-dev, Qwen-Image,
Wan2.2-A14B), else twice what the arithmetic takes at 790 TFLOP/s; only `plan` reads them. ``disk`` and
``memory`` are estimates from numbers of parameters; text encoders that do not fit stay on the host.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from pipeline.generators.base import Generator, GeneratorSpec
from pipeline.records import LicenceProfile, Modality
from pipeline.weights import Weights

Terms = tuple[str, LicenceProfile]
"""A licence, and the profile under which what is made under it may ship."""

APACHE: Terms = ("Apache-2.0", "permissive")
HIDREAM: Terms = ("MIT, Llama-3.1-Community (text encoder)", "permissive")
FLUX_1: Terms = ("FLUX.1-dev-Non-Commercial", "research")
FLUX_2: Terms = ("FLUX-Non-Commercial", "research")
STABILITY: Terms = ("Stability-AI-Community", "research")
OPENRAIL: Terms = ("CreativeML-OpenRAIL++-M", "research")
SANA: Terms = ("NVIDIA-NSCL, Gemma (text encoder)", "research")
HUNYUAN: Terms = ("Tencent-Hunyuan-Community", "research")  # none at all in the EU, the UK, South Korea
LTX: Terms = ("LTX-Video-OpenRAIL-M", "research")
GOOGLE: Terms = ("Gemini-API-Additional-Terms", "research")
BYTEPLUS: Terms = ("BytePlus-Terms", "research")


def _scene(profile: str, modality: Modality, seconds: float) -> GeneratorSpec:
    """A variant of the embedded renderer; ``version`` rises whenever its pixels change."""
    return GeneratorSpec(
        name=_named(f"scene/{profile}", modality),
        family="scene",
        modality=modality,
        licence=APACHE[0],
        licence_profile=APACHE[1],
        seconds=seconds,
        options={"profile": profile, "version": 1},
    )


def _degrade(kind: str, modality: Modality, seconds: float) -> GeneratorSpec:
    """Another's generation made worse in one way; ``version`` rises whenever its pixels change."""
    return GeneratorSpec(
        name=_named(f"degrade/{kind}", modality),
        family="degrade",
        modality=modality,
        licence=APACHE[0],
        licence_profile=APACHE[1],
        starts_from="own",
        seconds=seconds,
        options={"kind": kind, "weakest": 0.4, "strongest": 1.0, "version": 1},
    )


def _null(pace: str, modality: Modality, seconds: float) -> GeneratorSpec:
    """Takes ``seconds`` and makes nothing that means anything: for load tests."""
    return GeneratorSpec(
        name=_named(f"null/{pace}", modality),
        family="null",
        modality=modality,
        licence=APACHE[0],
        licence_profile=APACHE[1],
        seconds=seconds,
        options={"seconds": seconds, "noise": 1.0},
    )


def _named(name: str, modality: Modality) -> str:
    return name if modality == "image" else f"{name}-video"


def _model(
    name: str,
    repo: str,
    *,
    pipeline: str,
    terms: Terms = APACHE,
    disk: float,
    memory: float,
    seconds: float,
    frames: int = 0,
    fps: int = 0,
    batch: int = 4,
    multiple: int = 16,
    gated: bool = False,
    borrowed: Weights | None = None,
    dtype: str = "bfloat16",
    **options: float | str,
) -> GeneratorSpec:
    """A checkpoint of diffusers on one GPU: of images, or of videos of ``frames`` at ``fps``."""
    return GeneratorSpec(
        name=name,
        family="diffusion",
        modality="video" if frames else "image",
        licence=terms[0],
        licence_profile=terms[1],
        weights=Weights(repo=repo, disk=disk, memory=memory, gated=gated, borrowed=borrowed),
        gpus=1.0,
        batch=1 if frames else batch,
        seconds=seconds,
        frames=frames,
        fps=fps,
        multiple=multiple,
        options={"pipeline": pipeline, "dtype": dtype, **options},
    )


def _from_image(row: GeneratorSpec, name: str, pipeline: str) -> GeneratorSpec:
    """The weights of ``row`` started from a first frame, by another pipeline class."""
    return replace(row, name=name, starts_from="image", options={**row.options, "pipeline": pipeline})


def _remote(
    name: str, terms: Terms, service: str, model: str, *, frames: int, dollars: float
) -> GeneratorSpec:
    """A paid service; ``dollars`` an item by its price list of late 2025: check it before a budget is set."""
    return GeneratorSpec(
        name=name,
        family="remote",
        modality="video",
        licence=terms[0],
        licence_profile=terms[1],
        batch=8,
        seconds=15.0,
        frames=frames,
        fps=24,
        dollars=dollars,
        options={"service": service, "model": model, "resolution": "720p"},
    )


_PROFILES = ("steady", "hasty", "dreamy", "gaudy", "literal", "flawless", "flawed")
"""Variants of the renderer, each described in scene/defects.py; the last two make gold pairs."""

_STILL = ("blur", "noise", "blocking", "pixelation", "tint", "banding", "overexposure", "smear")
_MOVING = ("stutter", "shuffle", "flicker", "ghosting", "freeze")
"""What degrade.py does to every medium, and to videos only."""

_LLAMA = Weights(repo="meta-llama/Llama-3.1-8B-Instruct", disk=16.1, memory=16.1, gated=True)

_WAN_NEGATIVE = (
    "bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, overall "
    "gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly "
    "drawn hands, poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, "
    "messy background, three legs, many people in the background, walking backwards"
)
_LTX_NEGATIVE = "worst quality, inconsistent motion, blurry, jittery, distorted"
_CHROMA_NEGATIVE = "low quality, ugly, unfinished, out of focus, deformed, blurry, smudged, flat colors"
"""Negative prompts that the models' authors recommend."""

_flux = partial(_model, pipeline="FluxPipeline", disk=33.7, memory=42, gated=True)
_klein = partial(_model, pipeline="Flux2KleinPipeline", steps=4, guidance=1.0)
_qwen = partial(_model, pipeline="QwenImagePipeline", disk=57.7, memory=68, batch=2, negative_prompt=" ")
_hidream = partial(
    _model, pipeline="HiDreamImagePipeline", terms=HIDREAM, disk=46, memory=72, batch=1, borrowed=_LLAMA
)
_sd3 = partial(_model, pipeline="StableDiffusion3Pipeline", terms=STABILITY, gated=True)
_sana = partial(_model, pipeline="SanaPipeline", terms=SANA, batch=8, multiple=32, steps=20)
_z_image = partial(_model, pipeline="ZImagePipeline", disk=32.9, memory=26)
_wan = partial(_model, pipeline="WanPipeline", frames=81, fps=16, negative_prompt=_WAN_NEGATIVE)
_wan_21 = partial(_wan, steps=50, guidance=5.0, shift=5.0)
_wan_22 = partial(_wan, disk=126, memory=78, seconds=1041.0, steps=40)

BFL, SD, SANA_15 = "black-forest-labs", "stabilityai/stable-diffusion", "Efficient-Large-Model/SANA1.5"

_IMAGES = (
    _flux("FLUX.1-dev", f"{BFL}/FLUX.1-dev", terms=FLUX_1, seconds=6.7, steps=28, guidance=3.5),
    _flux(
        "FLUX.1-schnell", f"{BFL}/FLUX.1-schnell", seconds=1.0, steps=4, guidance=0.0, max_sequence_length=256
    ),
    _model(
        "FLUX.2-dev",
        f"{BFL}/FLUX.2-dev",
        pipeline="Flux2Pipeline",
        terms=FLUX_2,
        disk=113,
        memory=75,
        seconds=36.0,
        batch=2,
        gated=True,
        steps=50,
        guidance=4.0,
    ),
    _klein("FLUX.2-klein-4B", f"{BFL}/FLUX.2-klein-4B", disk=16, memory=22, seconds=0.4, batch=8),
    _klein(
        "FLUX.2-klein-9B",
        f"{BFL}/FLUX.2-klein-9B",
        terms=FLUX_2,
        disk=34.7,
        memory=42,
        seconds=0.8,
        gated=True,
    ),
    _qwen("Qwen-Image", "Qwen/Qwen-Image", seconds=18.5, steps=50, guidance=4.0),
    _qwen("Qwen-Image-2512", "Qwen/Qwen-Image-2512", seconds=18.5, steps=50, guidance=4.0),
    _hidream("HiDream-I1-Full", "HiDream-ai/HiDream-I1-Full", seconds=19.7, steps=50, guidance=5.0),
    _hidream("HiDream-I1-Dev", "HiDream-ai/HiDream-I1-Dev", seconds=5.5, steps=28, guidance=0.0),
    _hidream("HiDream-I1-Fast", "HiDream-ai/HiDream-I1-Fast", seconds=3.2, steps=16, guidance=0.0),
    _sd3(
        "SD3.5-Medium", f"{SD}-3.5-medium", disk=16, memory=24, seconds=2.3, batch=8, steps=40, guidance=4.5
    ),
    _sd3("SD3.5-Large", f"{SD}-3.5-large", disk=28, memory=38, seconds=11.3, steps=28, guidance=3.5),
    _model(
        "SDXL",
        f"{SD}-xl-base-1.0",
        pipeline="StableDiffusionXLPipeline",
        terms=OPENRAIL,
        disk=13.9,
        memory=14,
        seconds=1.4,
        batch=8,
        multiple=8,
        dtype="float16",  # then its VAE decodes in float32, as it has to
        steps=40,
        guidance=5.0,
    ),
    _sana("SANA-1.5-1.6B", f"{SANA_15}_1.6B_1024px_diffusers", disk=10, memory=15, seconds=0.4, guidance=4.5),
    _sana("SANA-1.5-4.8B", f"{SANA_15}_4.8B_1024px_diffusers", disk=15, memory=22, seconds=1.0, guidance=4.5),
    _model(
        "PixArt-Sigma",
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        pipeline="PixArtSigmaPipeline",
        terms=OPENRAIL,
        disk=21.7,
        memory=15,
        seconds=0.8,
        batch=8,
        multiple=8,
        steps=20,
        guidance=4.5,
    ),
    _z_image("Z-Image-Turbo", "Tongyi-MAI/Z-Image-Turbo", seconds=1.2, batch=8, steps=9, guidance=0.0),
    _z_image("Z-Image", "Tongyi-MAI/Z-Image", seconds=13.0, steps=50, guidance=4.0),
    _model(
        "HunyuanImage-2.1",  # made for 2048 px: smaller ones show artefacts
        "hunyuanvideo-community/HunyuanImage-2.1-Diffusers",
        pipeline="HunyuanImagePipeline",
        terms=HUNYUAN,
        disk=54,
        memory=66,
        seconds=13.0,
        batch=2,
        multiple=32,
        steps=50,
        guidance=3.25,
    ),
    _model(
        "Chroma1-HD",
        "lodestones/Chroma1-HD",
        pipeline="ChromaPipeline",
        disk=27.5,
        memory=36,
        seconds=19.0,
        steps=40,
        guidance=3.0,
        negative_prompt=_CHROMA_NEGATIVE,
    ),
)

_WAN_I2V = _wan_22("Wan2.2-I2V-A14B", "Wan-AI/Wan2.2-I2V-A14B-Diffusers", guidance=3.5)
_WAN_5B = _wan(
    "Wan2.2-TI2V-5B",
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    frames=121,
    fps=24,
    multiple=32,
    disk=34,
    memory=40,
    seconds=138.0,
    steps=50,
    guidance=5.0,
)
_LTX_2B = _model(
    "LTX-Video",
    "Lightricks/LTX-Video",
    pipeline="LTXPipeline",
    terms=LTX,
    frames=121,
    fps=24,
    multiple=32,
    disk=28,
    memory=24,
    seconds=26.0,
    steps=50,
    guidance=3.0,
    negative_prompt=_LTX_NEGATIVE,
)

_VIDEOS = (
    _wan_21("Wan2.1-T2V-1.3B", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", disk=29, memory=28, seconds=316.0),
    _wan_21("Wan2.1-T2V-14B", "Wan-AI/Wan2.1-T2V-14B-Diffusers", disk=80, memory=62, seconds=1300.0),
    _wan_22("Wan2.2-T2V-A14B", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", guidance=4.0, guidance_2=3.0),
    _WAN_5B,
    _LTX_2B,
    _model(
        "HunyuanVideo",
        "hunyuanvideo-community/HunyuanVideo",
        pipeline="HunyuanVideoPipeline",
        terms=HUNYUAN,
        frames=129,
        fps=24,
        disk=43,
        memory=62,
        seconds=1708.0,
        steps=50,
        guidance=6.0,
        vae="tiling",
    ),
    # Started from a first frame.
    _from_image(_WAN_I2V, "Wan2.2-I2V-A14B", "WanImageToVideoPipeline"),
    _from_image(_WAN_5B, "Wan2.2-TI2V-5B/image", "WanImageToVideoPipeline"),
    _from_image(_LTX_2B, "LTX-Video/image", "LTXImageToVideoPipeline"),
    # Paid services: profiles refuse them unless they opt in.
    _remote("veo-3", GOOGLE, "gemini", "veo-3.0-generate-001", frames=144, dollars=2.4),
    _remote("seedance-1.0", BYTEPLUS, "ark", "seedance-1-0-pro-250528", frames=121, dollars=0.26),
)

_ROWS = (
    *(_scene(profile, "image", 0.1) for profile in _PROFILES),
    *(_scene(profile, "video", 1.5) for profile in _PROFILES),
    *(_degrade(kind, "image", 0.2) for kind in _STILL),
    *(_degrade(kind, "video", 8.0) for kind in (*_STILL, *_MOVING)),
    *(_null("quick", "image", 0.0), _null("slow", "image", 0.1)),
    *(_null("quick", "video", 0.0), _null("slow", "video", 5.0)),
    *_IMAGES,
    *_VIDEOS,
)

GENERATORS: dict[str, GeneratorSpec] = {row.name: row for row in _ROWS}


def make_generator(spec: GeneratorSpec, *, budget: float = 0.0) -> Generator:
    """Return the adapter of the spec's family, not yet opened; ``budget`` in US dollars is the run's."""
    match spec.family:
        case "scene":
            from pipeline.generators.scene import SceneGenerator

            return SceneGenerator(spec)
        case "diffusion":
            from pipeline.generators.diffusion.adapter import DiffusionGenerator

            return DiffusionGenerator(spec)
        case "degrade":
            from pipeline.generators.degrade import DegradeGenerator

            return DegradeGenerator(spec)
        case "null":
            from pipeline.generators.null import NullGenerator

            return NullGenerator(spec)
        case "remote":
            from pipeline.generators.remote import RemoteGenerator

            return RemoteGenerator(spec, budget)
    raise ValueError(f"{spec.name}: no adapter for the family {spec.family!r}: add it to make_generator")
