"""Records survive storage, and a part has the same columns whether it holds one row or none."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import (
    Agreement,
    Attribute,
    Checks,
    Defect,
    Generation,
    Member,
    MotionCheck,
    ObjectCheck,
    Pair,
    Prompt,
    Reason,
    Record,
    RelationCheck,
    ShardEntry,
    Verdict,
    Vote,
)

NUMBERS = st.integers(min_value=0, max_value=2**63 - 1)
CHECKS = st.builds(
    Checks,
    objects=st.lists(st.builds(ObjectCheck, count=NUMBERS), max_size=3).map(tuple),
    relations=st.lists(st.builds(RelationCheck, subject=NUMBERS, object=NUMBERS), max_size=2).map(tuple),
    motions=st.lists(st.builds(MotionCheck, object=NUMBERS), max_size=1).map(tuple),
    attributes=st.lists(st.builds(Attribute), max_size=3).map(tuple),
)
ROWS: dict[type[Record], st.SearchStrategy[Record]] = {
    Prompt: st.builds(Prompt, bucket=NUMBERS, line=NUMBERS, checks=CHECKS),
    Generation: st.builds(
        Generation,
        **dict.fromkeys(("seed", "width", "height", "frames", "fps", "bytes"), NUMBERS),
        defects=st.none() | st.lists(st.builds(Defect, severity=st.floats(0, 1)), max_size=3).map(tuple),
    ),
    Pair: st.builds(Pair),
    Verdict: st.builds(Verdict, p_first=st.none() | st.floats(0, 1)),
    Agreement: st.builds(
        Agreement,
        bytes=NUMBERS,
        confidence=st.none() | st.floats(0, 1),
        votes=st.lists(st.builds(Vote), max_size=3).map(tuple),
    ),
    ShardEntry: st.builds(
        ShardEntry,
        confidence=st.floats(0, 1),
        members=st.lists(st.builds(Member, offset=NUMBERS, size=NUMBERS), max_size=4).map(tuple),
    ),
}


@pytest.mark.parametrize("record", ROWS, ids=lambda record: record.__name__)
def test_rows_come_back_as_they_went(record: type[Record]) -> None:
    @given(st.lists(ROWS[record], max_size=4))
    def check(rows: list[Record]) -> None:
        assert list(record.rows(record.table(rows))) == rows

    check()


@pytest.mark.parametrize("record", ROWS, ids=lambda record: record.__name__)
def test_an_empty_table_has_all_columns(record: type[Record]) -> None:
    assert record.table([]).schema == record.schema()


def test_a_reason_is_stored_as_its_word_and_read_as_a_reason() -> None:
    rows = [Vote(judge="j", choice="tie", consistent=True)]
    assert rows[0].choice == "tie"
    assert Reason("conflict") is Reason.CONFLICT
    assert Agreement.schema().field("reason").type == pa.string()


def test_an_older_part_without_a_new_column_reads_as_its_default() -> None:
    row = Prompt(
        id="i", root_id="i", category="c", bucket=0, text="t", subject="s", style="y",
        checks=Checks(), source="o", licence="l",
    )  # fmt: skip
    older = Prompt.table([row]).drop_columns(["line", "reason"])
    assert list(Prompt.rows(older)) == [row]
