"""What a build is made from, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.records import LicenceProfile, Modality

CastName = Literal["embedded", "models"]
Runner = Literal["local", "ray"]
Device = Literal["cuda", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a category asks for: pixels, and for a video its length (an image: 1 frame, 0 fps)."""

    width: int
    height: int
    frames: int = 1
    fps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rubric:
    """What a judge of a category is asked, with criteria a person could apply."""

    question: str
    criteria: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Where prompts come from: the category's grammar (no ``uri``), or a file of the user.

    ``uri`` is an s3:// address, or a path from the category file's folder, of JSONL or Parquet; ``sha256``
    pins its content and ``licence`` says under which terms its prompts may be used. ``seed`` draws
    another pool from the grammar.
    """

    seed: int = 0
    uri: str | None = None
    sha256: str | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How pairs are formed for the ``share`` of root prompts that take this recipe.

    across_models: ``generations`` of different generators, every two a pair.
    across_seeds: ``generations`` of one generator, every two a pair.
    perturbed_prompt: the winner from the prompt, the loser from a perturbed one, one generator.
    degraded: the winner as generated, the loser a degraded copy of it by one of ``losers``.
    shared_first_frame: videos of ``generations`` image-to-video generators from one first frame, which
    one of ``first_frames`` (image generators) renders; every two a pair.
    gold: ``winner`` and ``loser`` name generators whose order is known; or ``losers`` degrade what a
    generator of the category made. Calibrates, never ships.
    """

    kind: str
    share: float = 1.0
    generations: int = 2
    winner: str | None = None
    loser: str | None = None
    losers: tuple[str, ...] = ()
    first_frames: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How a judge does in a category: shares of its answers to a pair (both orders merged).

    ``accuracy`` of its votes, ``vote`` how often it votes at all; from a pilot or another run.
    """

    judge: str
    accuracy: float
    vote: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which pairs are kept: ``kind`` of policy, ``votes`` needed for the winner, ``judge`` for single.

    weighted and dawid_skene keep a pair whose winner is right with a probability of ``precision``.
    ``early_exit`` asks the judges one after the other, in the order in which the category names them,
    and no more once the pair cannot be kept; the share ``audit`` of the pairs is asked of all.
    ``calibration`` is how many buckets' gold pairs tell how far each judge can be trusted.
    """

    kind: str
    votes: int = 2
    judge: str | None = None
    precision: float = 0.95
    early_exit: bool = False
    audit: float = 0.05
    calibration: int = 100
    rates: tuple[Rate, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Safety:
    """Media that ``checker`` gives ``threshold`` or more become rows with a reason."""

    checker: str
    threshold: float = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """The ``share`` of prompts whose sentences ``rewriter`` turns into prose before they are rendered.

    What it is asked back must be answered with a probability of ``threshold``, else the original stays.
    """

    rewriter: str
    share: float = 1.0
    threshold: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who makes and who labels: names from the tables of generators and judges.

    ``size``, ``policy`` and ``safety`` stand in for those of the category where given. Without ``rewrite``
    prompts are rendered as they are.
    """

    generators: tuple[str, ...]
    judges: tuple[str, ...]
    recipes: tuple[Recipe, ...]
    size: Size | None = None
    policy: Policy | None = None
    safety: Safety | None = None
    rewrite: Rewrite | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """One file of categories/. ``quota`` counts kept pairs; ``source`` is the file it was read from."""

    name: str
    title: str
    modality: Modality
    size: Size
    quota: int
    rubric: Rubric
    policy: Policy
    pool: Pool = field(default_factory=Pool)
    embedded: Cast | None = None
    models: Cast | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a judge is served already: ``urls`` that speak the OpenAI protocol, such as http://host:8000/v1.

    ``judge`` names one, or a rewriter.
    """

    judge: str
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """The type of GPU, by Ray's name for it such as "H100", that ``models`` run on.

    ``models`` are names of generators, judges and rewriters, or one of these three words for all of a kind
    that are not named.
    """

    type: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars for ``item``: an hour of a type of GPU ("H100", or "GPU" for any) or of a "core", a month of
    a "TB" stored, or one item of a model, such as "veo-3"; only ``plan`` reads them.
    """

    item: str
    dollars: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The one revision of a repository of weights that a build uses: a commit of the hub, or sha256:<hex>."""

    repo: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One file of infra/profiles/: where a build runs and how large it is.

    ``cast`` picks the section of each category that names generators and judges. ``gpus`` is the least
    number the build needs. ``bucket_size`` is root prompts a unit, ``attempts`` how often a unit is
    tried, ``expected_kept`` the share of pairs expected to be kept (it sizes the first round only),
    ``image_quota`` and ``video_quota`` replace the categories' own where given.

    ``weights`` is a folder or s3:// prefix that holds each model's weights under its repository's name
    (None: the hub), ``pins`` the file that pins their revisions (None: infra/weights.toml). ``vllm`` is a
    Python that has vllm (None: the worker's own). A judge among ``endpoints`` is asked there; no server
    is started for it. ``budget`` is the most US dollars that remote generators may spend on a run.
    ``device`` cpu runs models without GPU, as tiny ones are tried. With ``overlap`` judges label the first
    buckets while generators are at later ones; without, one stage runs at a time. ``accelerators`` say which
    models run on which type of GPU.
    """

    name: str
    cast: CastName
    runner: Runner
    workers: int = 0
    gpus: int = 0
    bucket_size: int
    attempts: int = 3
    expected_kept: float
    shard_bytes: int = 1 << 30
    licence_profile: LicenceProfile = "permissive"
    image_quota: int | None = None
    video_quota: int | None = None
    weights: str | None = None
    pins: str | None = None
    vllm: str | None = None
    endpoints: tuple[Endpoint, ...] = ()
    budget: float = 0.0
    device: Device = "cuda"
    overlap: bool = False
    accelerators: tuple[Accelerator, ...] = ()
    prices: tuple[Price, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a build is made from; stored in the run as ``settings.json``."""

    profile: Profile
    categories: tuple[Category, ...]
    pins: tuple[Pin, ...] = ()

    def quota(self, category: Category) -> int:
        """Return the kept pairs wanted of ``category`` under this profile."""
        override = self.profile.image_quota if category.modality == "image" else self.profile.video_quota
        return category.quota if override is None else override

    def limited(self, pairs: int) -> Settings:
        """Return the settings of a pilot: about ``pairs`` pairs in all are judged, as the quotas divide them.

        A category still ends when its quota of kept pairs is met: it is what that many pairs should keep.
        """
        total = sum(self.quota(category) for category in self.categories)
        kept = pairs * self.profile.expected_kept / total
        categories = (
            replace(category, quota=max(1, round(self.quota(category) * kept)))
            for category in self.categories
        )
        profile = replace(self.profile, image_quota=None, video_quota=None)
        return replace(self, profile=profile, categories=tuple(categories))

    def accelerator(self, model: str, kind: Literal["generators", "judges", "rewriters"]) -> str | None:
        """Return the type of GPU that a model runs on; None: any."""
        types = {name: each.type for each in self.profile.accelerators for name in each.models}
        return types.get(model, types.get(kind))

    def size(self, category: Category) -> Size:
        """Return what generators of ``category`` are asked for under this profile."""
        return self.cast(category).size or category.size

    def policy(self, category: Category) -> Policy:
        """Return which pairs of ``category`` are kept under this profile."""
        return self.cast(category).policy or category.policy

    def cast(self, category: Category) -> Cast:
        """Return who makes and labels ``category``. Raises ConfigError if it has no such section."""
        chosen = category.embedded if self.profile.cast == "embedded" else category.models
        if chosen is None:
            raise ConfigError(
                f"{category.source}: no [{self.profile.cast}] section, which profile "
                f"{self.profile.name} needs: add its generators, judges and recipes, or use --profile laptop"
            )
        return chosen
