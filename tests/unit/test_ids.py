"""Ids: equal recipes have equal ids, everywhere and for ever."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ids import content_id, seed_of, unit_interval

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_an_id_never_changes() -> None:
    assert content_id("prompt", category="portrait", text="A baker.") == "58d2bb569bbcc578ce9a8d78da1b2e83"


@given(st.dictionaries(st.text(min_size=1).filter(lambda key: key != "kind"), VALUES, max_size=5))
def test_the_order_of_parts_does_not_matter(parts: dict[str, object]) -> None:
    backwards = dict(reversed(parts.items()))
    assert content_id("x", **parts) == content_id("x", **backwards)  # type: ignore[arg-type]


def test_unicode_forms_of_one_text_are_one_text() -> None:
    assert content_id("prompt", text="caf\u00e9") == content_id("prompt", text="cafe\u0301")


def test_kinds_and_types_are_kept_apart() -> None:
    assert (
        len({content_id("a", x=1), content_id("b", x=1), content_id("a", x="1"), content_id("a", y=1)}) == 4
    )


def test_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_id("x", value=math.nan)


@given(st.text())
def test_seeds_and_coins_stay_in_their_range(text: str) -> None:
    content = content_id("x", text=text)
    assert 0 <= seed_of(content) < 2**63
    assert 0 <= unit_interval(content) < 1


def test_coins_are_fair() -> None:
    coins = [unit_interval(content_id("x", number=number)) for number in range(2000)]
    assert abs(sum(coin < 0.3 for coin in coins) / 2000 - 0.3) < 0.04
