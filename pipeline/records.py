"""The records that flow through a build, and how each is stored.

Every record is a frozen dataclass; its ``pyarrow`` schema is derived once from the type hints (never
from data), so a part has the same columns whether it holds one row or none. Ids are content hashes of
the recipe, never of pixels (see ``ids``).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from typing import Any, ClassVar, Literal, Self, TypeVar, Union, cast

import pyarrow as pa

Modality = Literal["image", "video"]
Side = Literal["first", "second"]
Order = Literal["forward", "swapped"]
Choice = Literal["first", "second", "tie", "invalid"]
LicenceProfile = Literal["permissive", "research"]
Status = Literal["ok", "failed"]

ORDERS: tuple[Order, ...] = ("forward", "swapped")


class Reason(StrEnum):
    """Why a pair was dropped: a closed list, one reason a pair, tested in this order."""

    MISSING_MEDIA = "missing_media"  # a side was never generated
    SAME_MEDIA = "same_media"  # both sides are byte-identical
    GOLD = "gold"  # a calibration pair: judged, counted, never shipped
    INVALID_VERDICT = "invalid_verdict"  # a judge gave no usable answer
    INCONSISTENT = "inconsistent"  # a judge changed its mind when the order was swapped
    CONFLICT = "conflict"  # judges chose different sides
    UNEXPECTED = "unexpected"  # judges chose the side that the recipe made to lose
    TOO_FEW_VOTES = "too_few_votes"  # too many judges abstained


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectCheck:
    """``count`` objects of one kind, all of one colour if ``colour`` is given."""

    name: str
    count: int
    colour: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationCheck:
    """Object group ``subject`` stands ``relation`` object group ``object`` (indices into objects)."""

    subject: int
    relation: Literal["left of", "right of", "above", "below"]
    object: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionCheck:
    """Object group ``object`` moves ``direction`` across the frame while the camera does ``camera``."""

    object: int
    direction: Literal["left", "right", "up", "down", "still"]
    camera: Literal["static", "pan left", "pan right", "zoom in", "zoom out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """A named property that a prompt asks for, such as hair=red, style=watercolour, light=dusk."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What of a prompt a machine can check; empty for a prompt of unknown content."""

    objects: tuple[ObjectCheck, ...] = ()
    relations: tuple[RelationCheck, ...] = ()
    motions: tuple[MotionCheck, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    text: str | None = None

    def attribute(self, name: str) -> str | None:
        """Return the value of the attribute called ``name``, or None."""
        return next((a.value for a in self.attributes if a.name == name), None)


class Record:
    """Storage of a record: explicit schema, rows to table and back."""

    __slots__ = ()
    SORT_BY: ClassVar[str] = "id"

    @classmethod
    def schema(cls) -> pa.Schema:
        """Return the columns in which this record is stored."""
        return _schema(cls)

    @classmethod
    def optional(cls, name: str) -> bool:
        """Say whether a column may be missing, as in parts of older code."""
        fields = {field.name: field for field in dataclasses.fields(cast("Any", cls))}
        return fields[name].default is not dataclasses.MISSING

    @classmethod
    def table(cls, rows: Iterable[Self]) -> pa.Table:
        """Return ``rows`` as a table of this record's schema, in the order given."""
        return pa.Table.from_pylist([_plain(row) for row in rows], schema=cls.schema())

    @classmethod
    def rows(cls, table: pa.Table) -> Iterator[Self]:
        """Yield the records of ``table``; columns that older code did not write read as defaults."""
        for batch in table.to_batches(max_chunksize=4096):
            for row in batch.to_pylist():
                yield _record(cls, row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt(Record):
    """A text to render. ``id`` from category and text; a perturbed prompt keeps its original's root.

    ``status`` is "failed" for a row of a user's pool that cannot be used: ``reason`` says why and
    ``line`` where it stands in the source (1-based; 0 for grown prompts).

    ``difficulty`` counts the things of ``checks`` that a picture must get right: one for each object
    group, for its colour if given, for its number if above one, for each relation, each motion's
    direction, each camera that is not static, each word of the text, and each attribute that is
    placement, lettering, hair, skin, expression, eyewear or headwear (but "none"). 0: nothing known.
    """

    id: str
    root_id: str
    category: str
    bucket: int
    text: str
    subject: str
    style: str
    checks: Checks
    perturbation: str | None = None
    source: str
    licence: str
    status: Status = "ok"
    reason: str | None = None
    line: int = 0
    difficulty: int = 0
    original: str | None = None  # its text before a rewriter said it anew
    unrewritten: str | None = None  # why none did, "lost: ..." and the like; None also if no stage was to
    rewriting_id: str | None = None  # of all that the rewriter was asked, whatever came of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """An error that the embedded renderer made on purpose; ``severity`` in (0, 1]."""

    kind: str
    severity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation(Record):
    """One image or video of a prompt. ``id`` from prompt, generator spec, seed and size.

    ``defects`` is what the embedded renderer did wrong (None: a model, nobody knows). It serves
    calibration and is never shown to a judge. ``frames`` is 1 and ``fps`` 0 for an image.
    """

    id: str
    prompt_id: str
    root_id: str
    category: str
    generator: str
    generator_id: str
    seed: int
    width: int
    height: int
    frames: int
    fps: int
    mime: str
    media_sha256: str | None
    bytes: int
    licence: str
    licence_profile: LicenceProfile
    defects: tuple[Defect, ...] | None
    status: Status
    reason: str | None
    source_id: str | None = None  # the generation it started from: a first frame, or what was degraded
    safety: float | None = None  # what the category's safety checker gave it, in [0, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair(Record):
    """Two generations of one root prompt. ``id`` from root prompt, both generations and recipe.

    ``expected`` is the winning side where the recipe knows it. A ``gold`` pair calibrates judges and
    is never shipped.
    """

    id: str
    root_id: str
    category: str
    recipe: str
    first_id: str
    second_id: str
    first_sha256: str | None
    second_sha256: str | None
    expected: Side | None
    gold: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Record):
    """One answer of one judge to one order of a pair; ``choice`` is in pair coordinates.

    ``p_first`` is the judge's probability that the pair's first side is better (None: not given).
    """

    id: str
    pair_id: str
    category: str
    judge: str
    judge_id: str
    rubric_id: str
    order: Order
    choice: Choice
    p_first: float | None
    raw: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration(Record):
    """How a judge did on the gold pairs of a category; counts of pairs, both orders merged.

    ``low`` and ``high`` bound its accuracy among votes (Wilson, 95 %). ``a_bias`` is how often it chose
    the side shown as A, less one half. A judge that ``abstains`` is shown to be no better than chance.
    ``weight`` is that of its evidence under the weighted policy: its probability if ``graded``, or its vote.
    """

    SORT_BY: ClassVar[str] = "judge"

    category: str
    judge: str
    right: int
    wrong: int
    ties: int
    inconsistent: int
    invalid: int
    low: float
    high: float
    a_bias: float
    abstains: bool
    weight: float = 0.0
    graded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What one judge says of a pair once both orders are merged."""

    judge: str
    choice: Choice
    consistent: bool
    p_first: float | None = None  # mean over both orders


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement(Record):
    """The label of a pair, or the one reason why it has none.

    ``bytes`` of both media and the stricter of their licence profiles decide which shard it fills.
    """

    id: str
    pair_id: str
    root_id: str
    category: str
    policy: str
    kept: bool
    winner_id: str | None
    loser_id: str | None
    confidence: float | None
    reason: Reason | None
    votes: tuple[Vote, ...]
    bytes: int
    licence_profile: LicenceProfile | None
    audited: bool = True  # asked of all judges whatever the first ones said


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file inside a shard: ``offset`` and ``size`` in bytes locate its data in the tar."""

    name: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry(Record):
    """Where a kept pair lies in a shard."""

    SORT_BY: ClassVar[str] = "key"

    pair_id: str
    shard: str
    key: str
    category: str
    winner_generator: str
    loser_generator: str
    licence_profile: LicenceProfile
    confidence: float
    members: tuple[Member, ...]


def stricter(*profiles: LicenceProfile) -> LicenceProfile:
    """Return the profile under which all sides may be used."""
    return "research" if "research" in profiles else "permissive"


R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
_SCALARS = frozenset((str, int, float, bool, type(None)))


def _once(function: F) -> F:
    """``functools.cache`` for classes, which its own type hints do not count as hashable."""
    return cast("F", cache(function))


@_once
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _plain(value: Any) -> Any:
    """Turn nested dataclasses into what pyarrow takes: dicts, lists and scalars."""
    if type(value) in _SCALARS:
        return value
    if dataclasses.is_dataclass(value):
        return {name: _plain(getattr(value, name)) for name in _hints(type(value))}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value


def _record(cls: type[R], row: Mapping[str, Any]) -> R:
    values = ((name, read, row[name]) for name, read in _readers(cls).items() if name in row)
    return cls(**{name: v if read is None or v is None else read(v) for name, read, v in values})


@_once
def _readers(cls: Any) -> dict[str, Callable[[Any], Any] | None]:
    return {name: _reader(_required(hint)) for name, hint in _hints(cls).items()}


def _reader(hint: Any) -> Callable[[Any], Any] | None:
    """Return what rebuilds the dataclasses, tuples and enums that a stored row has lost, if any."""
    if dataclasses.is_dataclass(hint):
        return partial(_record, cast("Any", hint))
    if typing.get_origin(hint) is tuple:
        each = _reader(typing.get_args(hint)[0])
        return tuple if each is None else lambda items: tuple(map(each, items))
    return hint if isinstance(hint, type) and issubclass(hint, StrEnum) else None


def _required(hint: Any) -> Any:
    """Strip ``| None`` from a hint."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        return next(arg for arg in typing.get_args(hint) if arg is not type(None))
    return hint


@_once
def _schema(cls: Any) -> pa.Schema:
    return pa.schema([_field(name, hint) for name, hint in _hints(cls).items()])


def _field(name: str, hint: Any) -> pa.Field:
    required = _required(hint)
    return pa.field(name, _arrow_type(required), nullable=required is not hint)


def _arrow_type(hint: Any) -> pa.DataType:
    scalars = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    if hint in scalars:
        return scalars[hint]
    if typing.get_origin(hint) is Literal or issubclass(typing.get_origin(hint) or hint, StrEnum):
        return pa.string()
    if typing.get_origin(hint) is tuple:
        return pa.list_(pa.field("item", _arrow_type(typing.get_args(hint)[0]), nullable=False))
    if dataclasses.is_dataclass(hint):
        return pa.struct([_field(name, inner) for name, inner in _hints(cast("Any", hint)).items()])
    raise TypeError(f"no column type for {hint!r}: use str, int, float, bool, a tuple or a record")
