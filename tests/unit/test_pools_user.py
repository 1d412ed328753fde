"""A user's own pool: pinned, read row by row, and never brought down by a bad row."""

from __future__ import annotations

import hashlib
import io
import json
import re
import unicodedata
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.pools import grow, read
from pipeline.records import Checks, MotionCheck, ObjectCheck, Prompt, RelationCheck


def prompts(payload: bytes, uri: str = "file:///pools/mine.jsonl", bucket_size: int = 100) -> list[Prompt]:
    return list(
        read(
            uri,
            hashlib.sha256(payload).hexdigest(),
            category="alignment",
            licence="CC-BY-4.0",
            bucket_size=bucket_size,
            fetch=lambda _: payload,
        )
    )


def jsonl(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def reason(payload: bytes) -> str:
    (prompt,) = prompts(payload)
    assert prompt.status == "failed"
    assert prompt.reason is not None
    return prompt.reason


def test_a_row_becomes_a_prompt_with_its_line_source_and_licence() -> None:
    plain, full = prompts(
        jsonl({"text": "A red  star."}, {"text": "B", "subject": "b", "style": "s", "licence": "MIT"})
    )
    assert (plain.text, plain.subject, plain.style, plain.licence) == ("A red star.", "", "", "CC-BY-4.0")
    assert (plain.line, plain.status) == (1, "ok")
    assert re.fullmatch(r"mine\.jsonl#sha256=[0-9a-f]{16}", plain.source)
    assert plain.checks == Checks()
    assert (full.subject, full.style, full.licence, full.line) == ("b", "s", "MIT", 2)


def test_a_row_that_says_its_source_keeps_it() -> None:
    of_json, of_parquet = (
        prompts(jsonl({"text": "a", "source": "a set"}))[0],
        prompts(parquet(text=["a"], source=["a set"]), "mine.parquet")[0],
    )
    assert of_json.source.startswith("a set in mine.jsonl#sha256=")
    assert of_parquet.source.startswith("a set in mine.parquet#sha256=")


def test_ids_are_those_of_the_same_text_grown() -> None:
    root = next(grow("alignment", 1, bucket_size=1))
    (prompt,) = prompts(jsonl({"text": root.text}))
    assert (prompt.id, prompt.root_id) == (root.id, root.id)


def test_text_is_stored_in_nfc() -> None:
    (prompt,) = prompts(jsonl({"text": unicodedata.normalize("NFD", "Un café à Zürich")}))
    assert prompt.text == unicodedata.normalize("NFC", prompt.text)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"text": "\xff"}', "the line is not UTF-8"),
        (b'{"text": "\\ud800"}', "text is not UTF-8"),
        (b"  ", "an empty line"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'["text"]', "not a JSON object"),
        (b"{}", "no text"),
        (b'{"text": null}', "no text"),
        (b'{"text": " \\n "}', "no text"),
        (b'{"text": 7}', "text is not a string"),
        (b'{"text": "a\\u0000b"}', "text holds control characters"),
        (b'{"text": "a", "style": []}', "style is not a string"),
        (json.dumps({"text": "x" * 2001}).encode(), "text of 2,001 characters, the limit is 2,000"),
    ],
)
def test_a_bad_row_is_a_failed_prompt_with_a_reason_and_its_neighbours_are_read(
    line: bytes, expected: str
) -> None:
    before, bad, after = prompts(b'{"text": "before"}\n' + line + b'\n{"text": "after"}')
    assert (bad.status, bad.reason, bad.line) == ("failed", expected, 2)
    assert (before.status, before.line, after.status, after.line) == ("ok", 1, "ok", 3)


def test_a_repeated_text_fails_and_names_the_first_line() -> None:
    found = prompts(jsonl({"text": "A  star"}, {"text": "B"}, {"text": "A star"}))
    assert [prompt.status for prompt in found] == ["ok", "ok", "failed"]
    assert found[2].reason == "the same text as line 1"
    assert len({prompt.id for prompt in found}) == 3


def test_failed_rows_share_no_id_and_fit_the_record() -> None:
    found = prompts(b"\xff\n{\n\n{\n")
    assert len({prompt.id for prompt in found}) == 4
    assert list(Prompt.rows(Prompt.table(found))) == found


def test_the_longest_text_allowed_is_read_in_full() -> None:
    (prompt,) = prompts(jsonl({"text": "x" * 2000}))
    assert prompt.text == "x" * 2000


def test_buckets_follow_the_lines() -> None:
    found = prompts(jsonl(*({"text": str(number)} for number in range(7))), bucket_size=3)
    assert [prompt.bucket for prompt in found] == [0, 0, 0, 1, 1, 1, 2]


def test_windows_line_ends_and_a_byte_order_mark_are_read() -> None:
    found = prompts(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n')
    assert [prompt.text for prompt in found] == ["a", "b"]


def test_other_bytes_than_those_pinned_are_refused_with_both_hashes() -> None:
    pinned = "0" * 64
    with pytest.raises(ConfigError) as raised:
        read("s3://b/p.jsonl", pinned, category="a", licence="l", bucket_size=1, fetch=lambda _: b"x")
    for said in ("s3://b/p.jsonl", pinned, hashlib.sha256(b"x").hexdigest(), "restore the file"):
        assert said in str(raised.value)


CHECKS: dict[str, Any] = {
    "objects": [{"name": "star", "count": 2, "colour": "red"}, {"name": "car", "count": 1}],
    "relations": [{"subject": 0, "relation": "left of", "object": 1}],
    "motions": [{"object": 0, "direction": "up", "camera": "static"}],
}


def test_checks_are_read_from_jsonl() -> None:
    (prompt,) = prompts(jsonl({"text": "a", "checks": CHECKS}))
    assert prompt.checks == Checks(
        objects=(
            ObjectCheck(name="star", count=2, colour="red"),
            ObjectCheck(name="car", count=1, colour=None),
        ),
        relations=(RelationCheck(subject=0, relation="left of", object=1),),
        motions=(MotionCheck(object=0, direction="up", camera="static"),),
    )


def test_checks_are_read_from_parquet_structs_and_from_json_strings() -> None:
    (of_json,) = prompts(jsonl({"text": "a", "checks": CHECKS}))
    for column in ([CHECKS], [json.dumps(CHECKS)]):
        (prompt,) = prompts(parquet(text=["a"], checks=column), "mine.parquet")
        assert prompt.checks == of_json.checks


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ([], "checks is not an object"),
        ({"object": []}, "checks: unknown key 'object'"),
        ({"objects": {}}, "checks.objects is not a list"),
        ({"objects": [{"name": "star"}]}, "checks.objects.count is missing"),
        ({"objects": [{"name": "star", "count": True}]}, "checks.objects.count: True is not of type int"),
        ({"objects": [{"name": "star", "count": 6}]}, "checks: a count of 6, it must be 1 to 5"),
        ({"objects": [{"name": "unicorn", "count": 1}]}, "checks: no object 'unicorn'"),
        ({"objects": [{"name": "star", "count": 1, "colour": "mauve"}]}, "checks: no colour 'mauve'"),
        (
            {"relations": [{"subject": 0, "relation": "above", "object": 1}]},
            "checks: no relation subject 0",
        ),
        (
            {"motions": [{"object": 0, "direction": "left", "camera": "shakes"}]},
            "checks.motions.camera: 'shakes' is none of static, pan left, pan right, zoom in, zoom out",
        ),
    ],
)
def test_wrong_checks_fail_the_row_and_say_why(checks: object, expected: str) -> None:
    assert reason(jsonl({"text": "a", "checks": checks})) == expected


def test_a_parquet_pool_is_read_like_a_jsonl_pool() -> None:
    rows: list[dict[str, Any]] = [{"text": "a", "style": "s"}, {"text": "b"}, {"text": None}, {"text": "a"}]
    of_json = prompts(jsonl(*rows), "pool.parquet.jsonl")
    of_parquet = prompts(parquet(text=["a", "b", None, "a"], style=["s", None, None, None]), "pool.parquet")
    assert [(p.text, p.style, p.reason, p.line) for p in of_json] == [
        (p.text, p.style, p.reason, p.line) for p in of_parquet
    ]


def test_a_parquet_string_that_is_not_utf8_fails_only_its_row() -> None:
    broken = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    found = prompts(parquet(text=broken), "pool.parquet")
    assert [prompt.reason for prompt in found] == [None, "text is not UTF-8", None]


def test_a_parquet_pool_without_text_is_refused_and_its_columns_named() -> None:
    with pytest.raises(ConfigError, match=r"no column 'text'.*caption"):
        prompts(parquet(caption=["a"]), "pool.parquet")


def test_a_parquet_pool_that_is_cut_short_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a readable Parquet file"):
        prompts(parquet(text=["a"])[:-10], "pool.parquet")


@given(st.lists(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode))))
def test_no_bytes_ever_raise(lines: list[bytes]) -> None:
    found = prompts(b"\n".join(lines))
    assert [prompt.line for prompt in found] == list(range(1, len(found) + 1))
    assert len({prompt.id for prompt in found}) == len(found)
    assert list(Prompt.rows(Prompt.table(found))) == found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
check_keys = st.sampled_from(["objects", "relations", "motions", "attributes", "text"])
groups = st.dictionaries(st.sampled_from(["name", "count", "colour", "subject", "value"]), json_values)


@given(
    st.fixed_dictionaries(
        {"text": st.text(max_size=40)},
        optional={
            "checks": json_values | st.dictionaries(check_keys, json_values | st.lists(groups, max_size=2)),
            "style": json_values,
        },
    )
)
def test_no_json_object_ever_raises(row: dict[str, Any]) -> None:
    found = prompts(jsonl(row))
    assert list(Prompt.rows(Prompt.table(found))) == found
    assert (found[0].status == "failed") == (found[0].reason is not None)
