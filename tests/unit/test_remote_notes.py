"""Purchases of remote generators: the budget holds, opting in is explicit, odd answers are borne."""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Profile, Size
from pipeline.errors import ConfigError, CorruptError, ItemError, WorkerError
from pipeline.generators.base import GeneratorSpec, Request
from pipeline.generators.remote import DIALECTS, permit
from pipeline.generators.remote.ark import Ark
from pipeline.generators.remote.dialect import Answer, Dialect
from pipeline.generators.remote.gemini import Gemini
from pipeline.generators.remote.notes import MICRO, Note, Notes, cap, price, spent
from pipeline.generators.remote.wire import Pace, Wire, _wait
from pipeline.generators.table import GENERATORS
from pipeline.records import Checks, Prompt
from pipeline.storage import Store, open_store

SPEC = GeneratorSpec(
    name="veo",
    family="remote",
    modality="video",
    licence="terms",
    licence_profile="research",
    dollars=3.2,
    options={"service": "gemini"},
)
PROFILE = Profile(
    name="mine",
    cast="models",
    runner="local",
    bucket_size=1,
    expected_kept=0.5,
    licence_profile="research",
    budget=100.0,
)
KEY = "a-key-that-no-message-may-show"
money = st.floats(min_value=1e-6, max_value=1e6)
cents = st.integers(1, 500).map(lambda count: count / 100)
PIECES = [KEY, KEY[:9], KEY[9:], "Request id: 02", " ", "https://x/?s=1", "é"]
FIELDS = [
    *("error", "code", "status", "message", "details", "reason", "retryDelay", "done", "name", "id"),
    *("response", "generateVideoResponse", "generatedSamples", "video", "uri", "content", "video_url"),
    *("items", "created_at", "seed", "model"),
]
json = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


@contextmanager
def stored() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        yield open_store(folder)


@given(budget=money, dollars=money)
def test_money_is_rounded_against_the_buyer(budget: float, dollars: float) -> None:
    spec = replace(SPEC, dollars=dollars)
    assert cap(budget) <= Decimal(str(budget)) * MICRO < cap(budget) + 1
    assert price(spec) - 1 < Decimal(str(dollars)) * MICRO <= price(spec)


@pytest.mark.parametrize("budget", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_what_is_no_amount_of_money_buys_nothing(budget: float) -> None:
    assert cap(budget) == 0


@settings(max_examples=40)
@given(
    budget=cents,
    prices=st.lists(cents, min_size=2, max_size=2),
    steps=st.lists(
        st.tuples(st.sampled_from(["reserve", "release", "bought"]), st.integers(0, 1), st.integers(0, 5)),
        max_size=14,
    ),
)
def test_notes_do_as_a_cash_box_does(
    budget: float, prices: list[float], steps: list[tuple[str, int, int]]
) -> None:
    held: dict[tuple[int, int], str | None] = {}
    with stored() as store:
        specs = [replace(SPEC, name=f"row/{index}", dollars=dollars) for index, dollars in enumerate(prices)]
        every = [Notes(store, spec, budget) for spec in specs]
        for step, which, number in steps:
            notes, request, item = every[which], f"{number:032x}", (which, number)
            before = sum(price(specs[index]) for index, _ in held)
            if step == "reserve":
                if item not in held and before + price(specs[which]) > cap(budget):
                    with pytest.raises(ItemError, match="raise budget"):
                        notes.reserve(request)
                else:
                    assert notes.reserve(request) == (item not in held)
                    held.setdefault(item)
            elif step == "release" and held.get(item, "") is None:
                notes.release(request)
                del held[item]
            elif step == "bought" and held.get(item, "") is None:
                notes.bought(request, "operations/1", since=1.0)
                held[item] = "operations/1"
            found = notes.find(request)
            assert (found is not None) == (item in held)
            assert not found or found.operation == held[item]
            assert spent(store) == sum(price(specs[index]) for index, _ in held) <= cap(budget)


@settings(max_examples=15)
@given(budget=st.integers(0, 9), workers=st.integers(1, 4), each=st.integers(1, 4))
def test_workers_that_buy_at_once_never_pass_the_budget(budget: int, workers: int, each: int) -> None:
    spec = replace(SPEC, dollars=1.0)
    bought: list[int] = []
    with stored() as store:

        def work(worker: int) -> None:
            notes = Notes(store, spec, float(budget))
            for item in range(each):
                try:
                    bought.append(notes.reserve(f"{worker}-{item}"))
                except ItemError:
                    continue

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(bought) * MICRO == spent(store)
    assert len(bought) <= budget
    assert workers > 1 or len(bought) == min(each, budget)


def test_a_bucket_holds_notes_as_a_folder_does(bucket: str) -> None:
    store = open_store(f"{bucket}/run")
    notes = Notes(store, SPEC, 6.5)
    assert [notes.reserve(name) for name in ("a", "b", "b")] == [True, True, False]
    with pytest.raises(ItemError, match="raise budget"):
        notes.reserve("c")
    notes.release("b")
    notes.bought("a", "operations/1", since=1.0)
    assert notes.find("a") == Note(since=1.0, operation="operations/1")
    assert notes.find("b") is notes.find("c") is None
    assert spent(store) == price(SPEC)


def test_a_changed_price_does_not_buy_again() -> None:
    with stored() as store:
        assert Notes(store, SPEC, 10).reserve("a")
        dearer = Notes(store, replace(SPEC, dollars=4.0), 10)
        assert dearer.find("a")
        assert not dearer.reserve("a")
        assert spent(store) == price(SPEC)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"since": "soon"}', "\udcff"])
def test_a_damaged_note_is_one_line(text: str) -> None:
    with stored() as store:
        store.put("remote/veo/a/intent.3200000.json", text.encode(errors="surrogateescape"))
        with pytest.raises(CorruptError, match="not a readable note"):
            Notes(store, SPEC, 10).find("a")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"licence_profile": "permissive"}, 'set licence_profile = "research"'),
        ({"budget": 0.0}, "budget = 0 US dollars does not pay"),
        ({"budget": 3.19}, "budget = 3.19 US dollars does not pay"),
        ({"budget": math.inf}, "budget = inf US dollars does not pay"),
        ({"budget": math.nan}, "budget = nan US dollars does not pay"),
    ],
)
def test_a_paid_service_is_denied_unless_asked_for_twice(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        permit(SPEC, replace(PROFILE, **changes))
    assert problem in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    permit(SPEC, PROFILE)
    permit(replace(SPEC, family="diffusion"), replace(PROFILE, **changes))


@pytest.mark.parametrize("dollars", [0.0, -1.0, math.nan, math.inf])
def test_a_service_without_a_price_is_denied(dollars: float) -> None:
    with pytest.raises(ConfigError, match="is no price"):
        permit(replace(SPEC, dollars=dollars), PROFILE)


@pytest.mark.parametrize("name", [name for name, spec in GENERATORS.items() if spec.family == "remote"])
def test_every_row_of_the_table_can_be_ordered_and_is_paid_for_in_full(name: str) -> None:
    spec = GENERATORS[name]
    size = spec.size(Size(width=1280, height=720, frames=33, fps=16))
    prompt = Prompt(
        id="p",
        root_id="p",
        category="motion_quality",
        bucket=0,
        text="a red fox",
        subject="fox",
        style="",
        checks=Checks(),
        source="test",
        licence="CC0-1.0",
    )
    dialect = DIALECTS[str(spec.options["service"])]()
    _, body = dialect.order(spec, Request(id="r", prompt=prompt, seed=1 << 62, size=size))
    assert spec.licence_profile == "research"
    permit(spec, PROFILE)
    # ModelArk bills width x height x frames / 1024 tokens at 2.5 dollars a million, the Gemini API seconds.
    length = body["parameters"]["durationSeconds"] if "parameters" in body else body["duration"]
    least = {"gemini": 0.4 * length, "ark": 1248 * 704 * (24 * length + 1) / 1024 * 2.5e-6}
    assert spec.dollars >= least[str(spec.options["service"])] - 1e-9


@pytest.mark.parametrize("dialect", [Gemini(), Ark()])
@given(answer=json, status=st.sampled_from([200, 400, 401, 429, 500]))
def test_answers_of_any_shape_are_borne(dialect: Dialect, answer: Any, status: int) -> None:
    name = dialect.operation(answer)
    assert name is None or isinstance(name, str)
    try:
        address = dialect.result(answer)
    except ItemError:
        address = None
    assert address is None or isinstance(address, str)
    assert dialect.unfit(Answer(status=status, json=answer)) in (True, False)
    assert (_wait(None, answer) or 0) >= 0


@given(header=st.text(max_size=40) | st.from_regex(r"\w{3}, \d{2} \w{3} \d{4,9} \d\d:\d\d:\d\d GMT"))
def test_a_wait_of_any_shape_is_borne(header: str) -> None:
    assert (_wait(header, None) or 0) >= 0


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARK_API_KEY", KEY)
        wire = Wire(Ark(), Pace())
    yield wire
    wire.close()


@given(pieces=st.lists(st.sampled_from(PIECES)))
def test_no_message_shows_a_key_or_an_address(pieces: list[str], wire: Wire) -> None:
    said = wire.clean("".join(pieces))
    assert KEY not in said
    assert "https://" not in said
    assert len(said.splitlines()) <= 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ARK_API_KEY", ""),
        ("ARK_API_KEY", "two words"),
        ("ARK_API_KEY", "line\nbreak"),
        ("ARK_BASE_URL", "ark.example.com"),
        ("ARK_BASE_URL", "http://[::1"),
        ("ARK_PER_MINUTE", "many"),
        ("ARK_PER_MINUTE", "0"),
    ],
)
def test_an_unusable_environment_is_one_line(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARK_API_KEY", KEY)
    monkeypatch.setenv(variable, value)
    with pytest.raises(WorkerError, match=variable) as caught:
        Wire(Ark(), Pace())
    assert len(str(caught.value).splitlines()) == 1
    assert variable != "ARK_API_KEY" or not value or value not in str(caught.value)
