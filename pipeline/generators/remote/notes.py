"""What a run has bought, noted in its store.

    remote/<generator>/<request>/intent.<price>.json   before a submission; price in millionths of a US dollar
    remote/<generator>/<request>/operation.json        after it: under which name the service makes the video

Notes are never written twice and outlive parts: whoever asks for the same request again finds what was
bought, and of two workers who ask at once one buys (where the store heeds conditional puts; storage/s3.py).
An intent is taken back only where the service surely did not accept the submission. One that stays
without an operation counts as bought.

The budget is the run's, all generators and workers together: spent is the sum of the prices of all intents.
An intent is put first and the sum taken afterwards; if it is over the budget, the intent is taken back. The
last of any set of intents that stay has seen all the others, so the budget is never passed, however many
workers submit at once. They can hinder each other, though: near its end a budget may go unused for as many
items as are being submitted at that moment. What the service takes and then refuses to make stays counted,
though it is not charged.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from pipeline.errors import ConfigError, CorruptError, ItemError, StorageError
from pipeline.generators.base import GeneratorSpec
from pipeline.storage import Entry, Store

FOLDER = "remote/"
INTENT = re.compile(r"remote/[^/]+/[^/]+/intent\.(?P<price>\d+)\.json")
MICRO = 1_000_000
LARGEST = 1e12
"""US dollars: no budget is larger, and infinity is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A request that was submitted at ``since`` (Unix time); ``operation`` is None where nobody knows it."""

    since: float
    operation: str | None = None


def price(spec: GeneratorSpec) -> int:
    """Return what one item costs, in millionths of a dollar, rounded up. Raises ConfigError for no price."""
    if not 0 < spec.dollars < LARGEST:
        raise ConfigError(f"generator {spec.name}: dollars = {spec.dollars:g} is no price: set it in its row")
    return int((Decimal(str(spec.dollars)) * MICRO).to_integral_value(ROUND_CEILING))


def cap(budget: float) -> int:
    """Return a budget in millionths of a dollar, rounded down; what is no amount of money is none."""
    if not (math.isfinite(budget) and 0 <= budget <= LARGEST):
        return 0
    return int((Decimal(str(budget)) * MICRO).to_integral_value(ROUND_FLOOR))


def spent(store: Store) -> int:
    """Return what all generators of a run have bought so far, in millionths of a dollar."""
    found = (INTENT.fullmatch(entry.key) for entry in store.list(FOLDER))
    return sum(int(match["price"]) for match in found if match)


class Notes:
    """The notes of one generator; any number of threads and workers may write at once."""

    def __init__(self, store: Store, spec: GeneratorSpec, budget: float) -> None:
        self._store, self._spec, self._budget = store, spec, budget
        self._price, self._cap = price(spec), cap(budget)
        self._folder = FOLDER + spec.name.replace("/", "-")
        self._lock = threading.Lock()

    def find(self, request: str) -> Note | None:
        """Return what is noted of a request. Raises CorruptError, StorageError."""
        for entry in sorted(self._store.list(f"{self._folder}/{request}/"), key=_intents_last):
            try:
                return self._read(entry.key)
            except StorageError:
                if self._store.size(entry.key) is not None:  # else taken back just now
                    raise
        return None

    def reserve(self, request: str) -> bool:
        """Note the intent to buy; False if somebody else has. Raises ItemError where the budget ends."""
        # One at a time: threads of one worker would take each other for spent money.
        with self._lock:
            if not self._store.put(self._intent(request), _json(since=time.time())):
                return False
            stays = False
            try:
                stays = self._affordable(request)
            finally:
                if not stays:
                    self.release(request)
            return stays

    def release(self, request: str) -> None:
        """Take an intent back: nothing was bought."""
        self._store.delete(self._intent(request))

    def bought(self, request: str, operation: str, since: float) -> None:
        """Note under which name the service makes a request."""
        self._store.put(f"{self._folder}/{request}/operation.json", _json(operation=operation, since=since))

    def _affordable(self, request: str) -> bool:
        if spent(self._store) > self._cap:
            raise ItemError(
                f"the budget of {self._budget:g} US dollars does not cover another item of "
                f"{self._spec.name} at {self._spec.dollars:g}: raise budget in the profile"
            )
        intents = list(self._store.list(f"{self._folder}/{request}/intent."))
        return len(intents) == 1  # else it was bought at an older price

    def _intent(self, request: str) -> str:
        return f"{self._folder}/{request}/intent.{self._price}.json"

    def _read(self, key: str) -> Note:
        try:
            said = json.loads(self._store.get(key))
            return Note(since=float(said["since"]), operation=said.get("operation"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptError(
                f"{self._store.uri}/{key}: not a readable note of a purchase: remove it to buy again"
            ) from error


def _intents_last(entry: Entry) -> bool:
    return INTENT.fullmatch(entry.key) is not None


def _json(**said: str | float) -> bytes:
    return (json.dumps(said, sort_keys=True) + "\n").encode()
