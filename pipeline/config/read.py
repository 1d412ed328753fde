"""TOML in, frozen dataclasses out; a wrong key or value is refused before any work starts."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from pipeline.config.settings import Category, Profile, Settings
from pipeline.errors import ConfigError

T = TypeVar("T")

CATEGORY_NAME = re.compile(r"[a-z0-9_]{1,50}")
"""A tar member's name holds it beside a pair's id, and has up to 100 characters."""

LONGEST_PATH = 300


def data_root() -> Path:
    """Return the folder that holds categories/, prompts/ and infra/: the checkout, or the wheel's data."""
    package = Path(__file__).parents[1]
    return package / "_data" if (package / "_data").is_dir() else package.parent


def load_category(path: Path) -> Category:
    """Read one category file. Raises ConfigError naming file, key and remedy."""
    category = _build(Category, {**_toml(path), "source": _short(path)}, _short(path))
    if category.pool.uri is not None and "://" not in category.pool.uri:
        pool = dataclasses.replace(category.pool, uri=str((path.parent / category.pool.uri).absolute()))
        category = dataclasses.replace(category, pool=pool)
    check_category_name(category.name, f"{category.source}: name")
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


def load_toml(cls: type[T], path: Path) -> T:
    """Read a TOML file as dataclass ``cls``. Raises ConfigError naming file, key and remedy."""
    return _build(cls, _toml(path), _short(path))


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
        check_category_name(category.name, f"{where}: name")
        if not (category.source.isprintable() and len(category.source) <= LONGEST_PATH):
            raise ConfigError(f"{where}: source of {category.name} is no path: run build again")
    return settings


def check_category_name(name: str, where: str) -> None:
    """A category's name becomes part of paths: nothing in it may lead elsewhere. Raises ConfigError."""
    if not CATEGORY_NAME.fullmatch(name):
        raise ConfigError(f"{where} = {name[:80]!r} must be up to 50 characters of a-z, 0-9 and _")


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
