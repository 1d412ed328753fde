"""GenEval's metadata as checks: objects, counts, colours and places, where our symbols have them.

A row says ``include``: groups with ``class``, ``count`` and perhaps ``color`` and ``position``, which is
[relation, index of the other group] (Ghosh et al. 2023, the generator of its prompts). A check left out is
a question not asked; a wrong one would mislabel every pair. So a row that says anything our symbols do not
have, or that this cannot read, gets no checks at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from pipeline.media.symbols import COLOURS, OBJECTS
from pipeline.records import RelationCheck

MOST = 5
_NAMES = {"airplane": "plane", "cell phone": "telephone"}
_RELATIONS = get_args(get_type_hints(RelationCheck)["relation"])


def geneval_checks(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the checks of one row as plain data, or None."""
    groups = row.get("include")
    if not isinstance(groups, list) or not groups:
        return None
    objects = [_object(group) for group in groups]
    relations = [_relation(place, group, len(groups)) for place, group in enumerate(groups) if _placed(group)]
    if None in objects or None in relations:
        return None
    return {"objects": objects, "relations": relations}


def _placed(group: Any) -> bool:
    return isinstance(group, Mapping) and group.get("position") is not None


def _object(group: Any) -> dict[str, Any] | None:
    if not isinstance(group, Mapping):
        return None
    name, count, colour = group.get("class"), group.get("count", 1), group.get("color")
    name = _NAMES.get(str(name), str(name))
    known = name in OBJECTS and (colour is None or str(colour) in COLOURS)
    if not known or type(count) is not int or not 1 <= count <= MOST:
        return None
    return {"name": name, "count": count, "colour": colour}


def _relation(place: int, group: Mapping[str, Any], groups: int) -> dict[str, Any] | None:
    position = group["position"]
    if not isinstance(position, list) or len(position) != 2:
        return None
    relation, other = position
    known = str(relation) in _RELATIONS and type(other) is int and 0 <= other < groups and other != place
    return {"subject": place, "relation": relation, "object": other} if known else None
