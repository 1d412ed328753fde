"""Checks that a user wrote by hand, read with care: a wrong one would mislabel every pair of its prompt."""

from __future__ import annotations

import types
import typing
import unicodedata
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Literal

from pipeline.errors import ItemError
from pipeline.media.symbols import COLOURS, OBJECTS
from pipeline.records import Checks

_MOST = 5


def checks_of(value: object) -> Checks:
    """Return the checks that plain JSON states; None states none. Raises ItemError."""
    checks: Checks = _typed(Checks, value, "checks") if value is not None else Checks()
    groups = len(checks.objects)
    for group in checks.objects:
        _one_of(group.name, OBJECTS, "object")
        _one_of(group.colour, (None, *COLOURS), "colour")
        if not 1 <= group.count <= _MOST:
            raise ItemError(f"checks: a count of {group.count}, it must be 1 to {_MOST}")
    for relation in checks.relations:
        _one_of(relation.subject, range(groups), "relation subject")
        _one_of(relation.object, range(groups), "relation object")
        if relation.subject == relation.object:
            raise ItemError("checks: a relation of a group to itself")
    for motion in checks.motions:
        _one_of(motion.object, range(groups), "motion object")
    return checks


def _one_of(value: object, allowed: Any, what: str) -> None:
    if value not in allowed:
        raise ItemError(f"checks: no {what} {value!r}")


def _typed(hint: Any, value: Any, where: str) -> Any:
    """Return ``value`` as ``hint`` says, or raise ItemError naming the place."""
    if isinstance(hint, types.UnionType):
        return None if value is None else _typed(typing.get_args(hint)[0], value, where)
    if is_dataclass(hint):
        return _record(hint, value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ItemError(f"{where} is not a list")
        return tuple(_typed(typing.get_args(hint)[0], each, where) for each in value)
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise ItemError(f"{where}: {value!r} is none of {', '.join(typing.get_args(hint))}")
        return value
    if value is None:
        raise ItemError(f"{where} is missing")
    if type(value) is not hint:
        raise ItemError(f"{where}: {value!r} is not of type {hint.__name__}")
    return _clean(value, where) if hint is str else value


def _record(cls: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ItemError(f"{where} is not an object")
    hints = _hints(cls)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise ItemError(f"{where}: unknown key {unknown[0]!r}")
    given = {
        field.name: _typed(hints[field.name], value.get(field.name), f"{where}.{field.name}")
        for field in fields(cls)
        if value.get(field.name) is not None or not _may_lack(cls, field)
    }
    return cls(**given)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _may_lack(cls: Any, field: Field[Any]) -> bool:
    """Lists of checks may be left out; Parquet gives None for those."""
    return cls is Checks and field.default is not MISSING


def _clean(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ItemError(f"{where} is not UTF-8") from error
    return unicodedata.normalize("NFC", value)
