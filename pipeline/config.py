"""Settings: TOML in, frozen dataclasses out; a wrong key or value is refused before any work starts.

Only the driver reads TOML. Names of generators, judges, recipes and policies are checked one floor up,
where their tables are known (``stages.check``).
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from pipeline.errors import ConfigError
from pipeline.records import LicenceProfile, Modality

CastName = Literal["embedded", "models"]
Runner = Literal["local", "ray"]
Device = Literal["cuda", "cpu"]
T = TypeVar("T")

CATEGORY_NAME = re.compile(r"[a-z0-9_]{1,60}")
LONGEST_PATH = 300


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
class Cast:
    """Who makes and who labels: names from the tables of generators and judges.

    ``size``, ``policy`` and ``safety`` stand in for those of the category where given.
    """

    generators: tuple[str, ...]
    judges: tuple[str, ...]
    recipes: tuple[Recipe, ...]
    size: Size | None = None
    policy: Policy | None = None
    safety: Safety | None = None


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
    """Where a judge is served already: ``urls`` that speak the OpenAI protocol, such as http://host:8000/v1."""

    judge: str
    urls: tuple[str, ...]


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
    ``device`` cpu runs models without GPU, as tiny ones are tried.
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


def data_root() -> Path:
    """Return the folder that holds categories/, prompts/ and infra/: the checkout, or the wheel's data."""
    package = Path(__file__).parent
    return package / "_data" if (package / "_data").is_dir() else package.parent


def load_category(path: Path) -> Category:
    """Read one category file. Raises ConfigError naming file, key and remedy."""
    category = _build(Category, {**_toml(path), "source": _short(path)}, _short(path))
    if category.pool.uri is not None and "://" not in category.pool.uri:
        pool = dataclasses.replace(category.pool, uri=str((path.parent / category.pool.uri).absolute()))
        category = dataclasses.replace(category, pool=pool)
    _check_name(category, category.source)
    _require(category.quota > 0, category.source, "quota", "must be above 0")
    _require(bool(category.rubric.criteria), category.source, "rubric.criteria", "must not be empty")
    if category.name != path.stem:
        raise ConfigError(
            f"{category.source}: name = {category.name!r} must equal the file's name {path.stem!r}"
        )
    _require(
        (category.size.fps > 0) == (category.modality == "video"),
        category.source,
        "size.fps",
        "must be above 0 for a video and 0 for an image",
    )
    for cast in filter(None, (category.embedded, category.models)):
        for key in ("generators", "judges", "recipes"):
            _require(bool(getattr(cast, key)), category.source, key, "must be a list of at least one entry")
        shares = sum(recipe.share for recipe in cast.recipes)
        _require(
            abs(shares - 1) < 1e-9, category.source, "recipes", f"shares add up to {shares:g}, must be 1"
        )
    return category


def load_profile(path: Path) -> Profile:
    """Read one profile file. Raises ConfigError naming file, key and remedy."""
    profile = _build(Profile, {"name": path.stem, **_toml(path)}, _short(path))
    # Workers run elsewhere: a path is one from the profile's folder.
    if profile.pins is not None:
        profile = dataclasses.replace(profile, pins=str((path.parent / profile.pins).absolute()))
    if profile.vllm is not None and "/" in profile.vllm:
        profile = dataclasses.replace(profile, vllm=str((path.parent / profile.vllm).absolute()))
    _require(profile.bucket_size > 0, _short(path), "bucket_size", "must be above 0")
    _require(profile.attempts > 0, _short(path), "attempts", "must be above 0")
    _require(0 < profile.expected_kept <= 1, _short(path), "expected_kept", "must be in (0, 1]")
    return profile


def to_json(settings: Settings) -> bytes:
    """Return ``settings`` as canonical JSON."""
    return (json.dumps(dataclasses.asdict(settings), indent=1, sort_keys=True) + "\n").encode()


def from_json(data: bytes, where: str) -> Settings:
    """Read what ``to_json`` wrote. Raises ConfigError."""
    try:
        settings = _build(Settings, json.loads(data), where)
    except (ValueError, RecursionError) as error:
        cause = repr(error)[:200]
        raise ConfigError(f"{where}: not readable as settings ({cause}): run build again") from error
    for category in settings.categories:
        _check_name(category, where)
        if not (category.source.isprintable() and len(category.source) <= LONGEST_PATH):
            raise ConfigError(f"{where}: source of {category.name} is no path: run build again")
    return settings


def _check_name(category: Category, where: str) -> None:
    """A category's name becomes part of paths: nothing in it may lead elsewhere."""
    if not CATEGORY_NAME.fullmatch(category.name):
        raise ConfigError(f"{where}: name = {category.name[:80]!r} must be of a-z, 0-9 and _")


def nearest(wrong: str, valid: typing.Iterable[str]) -> str:
    """Return a remedy for a wrong name: the nearest valid one, or all of them."""
    options = sorted(valid)
    close = difflib.get_close_matches(wrong, options, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(options) or 'none'}"


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = [p.stem for p in path.parent.glob("*.toml")]
        raise ConfigError(f"{path}: no such file: {nearest(path.stem, names)}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{_short(path)}: cannot be read as TOML: {error}") from error


def _short(path: Path) -> str:
    """Return the path from the folder above: ``categories/portrait.toml`` says enough."""
    return f"{path.parent.name}/{path.name}"


def _require(holds: bool, where: str, key: str, must: str) -> None:
    if not holds:
        raise ConfigError(f"{where}: {key} {must}")


def _build(cls: type[T], given: Any, where: str, key: str = "") -> T:
    """Make a dataclass from plain data, refusing unknown and missing keys and wrong types."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: {key or 'file'} must be a table of keys, not {given!r}")
    hints = typing.get_type_hints(cls)
    for name in given:
        if name not in hints:
            raise ConfigError(f"{where}: unknown key {key + name!r}: {nearest(name, hints)}")
    for item in dataclasses.fields(typing.cast("Any", cls)):
        has_default = (
            item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
        )
        if item.name not in given and not has_default:
            raise ConfigError(f"{where}: key {key + item.name!r} is missing: add it")
    values = {name: _value(hints[name], value, where, f"{key}{name}") for name, value in given.items()}
    return cls(**values)


def _value(hint: Any, given: Any, where: str, key: str) -> Any:
    if typing.get_origin(hint) in (Union, types.UnionType):
        if given is None:
            return None
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast("type[Any]", hint), given, where, f"{key}.")
    if typing.get_origin(hint) is tuple:
        return _items(typing.get_args(hint)[0], given, where, key)
    if typing.get_origin(hint) is Literal:
        return _literal(typing.get_args(hint), given, where, key)
    return _scalar(hint, given, where, key)


def _items(hint: Any, given: Any, where: str, key: str) -> tuple[Any, ...]:
    if not isinstance(given, (list, tuple)):
        raise ConfigError(f"{where}: {key} must be a list, not {given!r}")
    return tuple(_value(hint, item, where, f"{key}[{index}]") for index, item in enumerate(given))


def _literal(valid: tuple[str, ...], given: Any, where: str, key: str) -> Any:
    if given not in valid:
        raise ConfigError(f"{where}: {key} = {given!r} is not known: {nearest(str(given), valid)}")
    return given


def _scalar(hint: Any, given: Any, where: str, key: str) -> Any:
    if hint is float and type(given) is int:
        return float(given)
    if type(given) is not hint:
        raise ConfigError(f"{where}: {key} = {given!r} must be of type {hint.__name__}")
    return given
