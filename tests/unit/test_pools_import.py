"""Importing a pool: every set in its own layout, evaluation sets held out, nothing lost without a reason."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import pools
from pipeline.errors import ConfigError
from pipeline.pools.clean import Reason
from pipeline.pools.imports import FORMATS, Imported, check_pool, hold_out, import_pool
from pipeline.pools.imports.geneval import geneval_checks
from pipeline.records import Checks, ObjectCheck, Prompt, RelationCheck

LAKE = "a lemon tree by a quiet lake in spring"
CORGI = "a corgi playing a flute on a red hill"
FIRST, SECOND = LAKE, "two bicycles leaning on an old brick wall"


def imported(*sources: Path | str, out: Path | str, **given: Any) -> Imported:
    given = {"format": "plain", "licence": "CC0-1.0", "source": "a set", "similar": 0.0, **given}
    return import_pool([str(source) for source in sources], out=str(out), **given)


def written(path: Path | str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(path: Path, *rows: dict[str, Any], delimiter: str = ",") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def prompts(made: Imported) -> list[Prompt]:
    return list(
        pools.read(
            made.pool,
            made.sha256,
            category="alignment",
            licence=made.licence,
            bucket_size=100,
            fetch=lambda uri: Path(uri).read_bytes(),
        )
    )


def test_what_is_written_is_the_pool_that_a_category_reads(tmp_path: Path) -> None:
    checks = {"objects": [{"name": "star", "count": 2, "colour": "red"}]}
    raw = jsonl(
        tmp_path / "raw.jsonl",
        {"text": f" {FIRST}  ", "style": "photo", "licence": "MIT"},
        {"text": "two red stars over a harbour", "checks": checks},
        {"text": ""},
    )
    made = imported(raw, out=tmp_path / "pool.parquet")
    first, second = prompts(made)
    assert (first.text, first.style, first.licence, first.status) == (FIRST, "photo", "MIT", "ok")
    assert second.licence == "CC0-1.0"
    assert second.checks == Checks(objects=(ObjectCheck(name="star", count=2, colour="red"),))
    assert first.source == f"a set in pool.parquet#sha256={made.sha256[:16]}"
    assert hashlib.sha256((tmp_path / "pool.parquet").read_bytes()).hexdigest() == made.sha256
    assert (made.rows, made.kept, made.repaired, made.checked) == (3, 2, 1, 1)
    assert made.dropped == {Reason.TOO_SHORT: 1}
    assert f'sha256 = "{made.sha256}"' in made.toml()


def test_a_pool_made_again_is_the_same_to_the_byte(tmp_path: Path) -> None:
    raw = jsonl(tmp_path / "raw.jsonl", *({"text": f"{LAKE}, view {n}"} for n in range(50)), {"text": CORGI})
    one, other = (imported(raw, out=tmp_path / name) for name in ("one.parquet", "other.parquet"))
    assert one.sha256 == other.sha256
    assert Path(one.dropped_pool).read_bytes() == Path(other.dropped_pool).read_bytes()


def test_every_row_is_kept_or_stands_among_the_dropped_with_its_place_and_reason(tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    lines = [
        {"text": FIRST},
        {"text": 7},
        {"no": "text"},
        {"text": "a naked child"},
        {"text": "mail bob@example.com"},
        {"text": FIRST.upper()},
    ]
    raw.write_bytes(b'\xff\n{\n["x"]\n' + b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    made = imported(raw, out=tmp_path / "pool.parquet")
    rest = written(made.dropped_pool)
    assert made.kept + len(rest) == made.rows == 9
    assert sum(made.dropped.values()) == len(rest)
    found = [(row["row"], row["line"], row["reason"], row["detail"]) for row in rest]
    assert found == [
        (1, 1, "unreadable", "the line is not UTF-8"),
        (2, 2, "unreadable", "not JSON"),
        (3, 3, "unreadable", "not a JSON object"),
        (5, 5, "unreadable", "text is not a string"),
        (6, 6, "unreadable", "no text"),
        (7, 7, "minors", "child, naked"),
        (8, 8, "pii", "e-mail"),
        (9, 9, "duplicate", "row 4"),
    ]
    assert [row["text"] for row in rest[5:7]] == [None, None]
    assert {row["file"] for row in rest} == {"raw.jsonl"}


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40), st.text(max_size=40).map(lambda t: json.dumps({"text": t}).encode())
        )
    )
)
def test_no_line_is_fatal(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("pool")
    raw = folder / "raw.jsonl"
    raw.write_bytes(b"\n".join([json.dumps({"text": FIRST}).encode(), *lines]))
    made = imported(raw, out=folder / "pool.parquet")
    count = len(raw.read_bytes().removesuffix(b"\n").split(b"\n"))
    assert made.kept + sum(made.dropped.values()) == made.rows == count
    assert all(prompt.status == "ok" for prompt in prompts(made))


def _parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def _dpg(folder: Path) -> Path:
    (folder / "dpg").mkdir()
    for number, text in enumerate((FIRST, f"{SECOND}\nin the rain")):
        (folder / f"dpg/{number}.txt").write_text(text)
    return folder / "dpg"


def _json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


GENEVAL = {"tag": "single_object", "include": [{"class": "bus", "count": 1}], "prompt": FIRST}
LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "plain": lambda folder: jsonl(folder / "a.jsonl", {"prompt": FIRST}, {"text": SECOND}),
    "diffusiondb": lambda folder: _parquet(
        folder / "a.parquet", prompt=[FIRST, SECOND], prompt_nsfw=[0.01, 0.2], image_nsfw=[0.1, 2.0]
    ),
    "pick-a-pic": lambda folder: _parquet(folder / "a.parquet", caption=[FIRST, SECOND], label_0=[0.5, 1.0]),
    "hpd": lambda folder: _json(folder / "a.json", [{"prompt": FIRST, "image_path": []}, {"prompt": SECOND}]),
    "vidprom": lambda folder: table(
        folder / "a.csv",
        {"uuid": "1", "prompt": FIRST, "toxicity": "0.001", "sexual_explicit": "1e-05"},
        {"uuid": "2", "prompt": SECOND, "toxicity": "", "sexual_explicit": "0.1"},
    ),
    "geneval-style": lambda folder: jsonl(folder / "a.jsonl", GENEVAL, {**GENEVAL, "prompt": SECOND}),
    "geneval": lambda folder: jsonl(folder / "a.jsonl", GENEVAL, {**GENEVAL, "prompt": SECOND}),
    "parti": lambda folder: table(
        folder / "a.tsv",
        {"Prompt": FIRST, "Category": "x"},
        {"Prompt": SECOND, "Category": "y"},
        delimiter="\t",
    ),
    "drawbench": lambda folder: table(
        folder / "a.csv", {"Prompts": FIRST, "Category": "x"}, {"Prompts": SECOND, "Category": "y"}
    ),
    "dpg": _dpg,
    "vbench": lambda folder: _json(
        folder / "a.json", [{"prompt_en": text, "dimension": ["color"]} for text in (FIRST, SECOND)]
    ),
    "hpd-benchmark": lambda folder: _json(folder / "a.json", [FIRST, SECOND]),
}


def test_every_format_is_tried_here() -> None:
    assert set(LAYOUTS) == set(FORMATS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_set_is_read_from_its_own_layout(name: str, tmp_path: Path) -> None:
    source = LAYOUTS[name](tmp_path)
    if FORMATS[name].evaluation:
        with pytest.raises(ConfigError, match=f"{name} is an evaluation set.*--hold-out {name}=FILE"):
            imported(source, format=name, out=tmp_path / "pool.parquet")
        held = hold_out([f"{name}={source}"])
        assert len(held) == 2
        assert held.match(FIRST) == ("exact", FIRST)
        assert held.match(SECOND) is not None
    else:
        made = imported(source, format=name, out=tmp_path / "pool.parquet")
        assert [row["text"] for row in written(made.pool)] == [FIRST, SECOND]


def test_scores_of_the_set_itself_drop_a_row(tmp_path: Path) -> None:
    raw = _parquet(tmp_path / "a.parquet", prompt=[FIRST, SECOND], prompt_nsfw=[0.1, 0.9])
    made = imported(raw, format="diffusiondb", out=tmp_path / "pool.parquet")
    assert (made.kept, made.dropped) == (1, {Reason.NSFW: 1})


def test_columns_of_any_name_are_taken_for_ours(tmp_path: Path) -> None:
    raw = table(tmp_path / "a.csv", {"caption": FIRST, "terms": "MIT", "look": "photo"})
    with pytest.raises(ConfigError, match=r"no column text or prompt, only caption, terms, look: .*--column"):
        imported(raw, out=tmp_path / "pool.parquet")
    columns = {"text": "caption", "licence": "terms", "style": "look"}
    made = imported(raw, out=tmp_path / "pool.parquet", columns=columns)
    (row,) = written(made.pool)
    assert (row["text"], row["licence"], row["style"]) == (FIRST, "MIT", "photo")


def test_cells_that_are_not_utf8_or_too_long_fail_only_their_rows(tmp_path: Path) -> None:
    raw = tmp_path / "a.csv"
    raw.write_bytes(
        f"prompt\n{FIRST}\n".encode() + b"\xff bad\n" + b"x" * (1 << 21) + f"\n{SECOND}\n".encode()
    )
    made = imported(raw, out=tmp_path / "pool.parquet")
    assert (made.kept, made.dropped) == (2, {Reason.UNREADABLE: 2})
    broken = pa.array([FIRST.encode(), b"\xff", SECOND.encode()], pa.binary()).view(pa.string())
    made = imported(_parquet(tmp_path / "a.parquet", text=broken), out=tmp_path / "other.parquet")
    assert (made.kept, made.dropped) == (2, {Reason.UNREADABLE: 1})


GROUPS = [{"class": "bus", "count": 1, "color": "red"}, {"class": "dog", "count": 1}]


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (
            [{"class": "airplane", "count": 3}],
            Checks(objects=(ObjectCheck(name="plane", count=3, colour=None),)),
        ),
        (
            [
                {"class": "bus", "count": 1, "color": "red"},
                {"class": "clock", "count": 1, "position": ["left of", 0]},
            ],
            Checks(
                objects=(
                    ObjectCheck(name="bus", count=1, colour="red"),
                    ObjectCheck(name="clock", count=1, colour=None),
                ),
                relations=(RelationCheck(subject=1, relation="left of", object=0),),
            ),
        ),
        ([{"class": "dog", "count": 1}], None),
        (GROUPS, None),
        ([{"class": "bus", "count": 1, "color": "mauve"}], None),
        ([{"class": "bus", "count": 9}], None),
        ([{"class": "bus", "count": 1, "position": ["behind", 0]}], None),
        ([{"class": "bus", "count": 1, "position": ["left of", 0]}], None),
        ([{"class": ["bus"], "count": 1}], None),
        ("bus", None),
        ([], None),
    ],
)
def test_genevals_metadata_becomes_checks_where_all_of_it_can(
    include: object, expected: Checks | None, tmp_path: Path
) -> None:
    raw = jsonl(tmp_path / "a.jsonl", {"prompt": FIRST, "include": include})
    made = imported(raw, format="geneval-style", out=tmp_path / "pool.parquet")
    (prompt,) = prompts(made)
    assert prompt.checks == (expected or Checks())
    assert made.checked == (expected is not None)


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["bus", "red", "left of"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["class", "count", "color", "position"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(values)
def test_no_metadata_makes_it_raise(include: object) -> None:
    geneval_checks({"include": include})


def test_held_out_prompts_are_dropped_and_a_pool_that_holds_them_is_named(tmp_path: Path) -> None:
    benchmark = table(tmp_path / "parti.tsv", {"Prompt": CORGI, "Category": "Animals"}, delimiter="\t")
    raw = jsonl(tmp_path / "raw.jsonl", {"text": CORGI.upper()}, {"text": f"{CORGI}, 8k"}, {"text": LAKE})
    held = hold_out([f"parti={benchmark}"])
    found = check_pool(str(raw), held)
    assert [(match.row, match.how, match.held_out) for match in found.matches] == [
        (1, "exact", CORGI),
        (2, "near", CORGI),
    ]
    made = imported(raw, out=tmp_path / "pool.parquet", held_out=held)
    assert (made.kept, made.dropped) == (1, {Reason.HELD_OUT: 2})
    assert check_pool(made.pool, held).matches == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"format": "diffusion-db"}, "did you mean 'diffusiondb'"),
        ({"licence": " "}, "licence is empty"),
        ({"source": ""}, "source is empty"),
        ({"columns": {"txt": "a"}}, "no column 'txt': did you mean 'text'"),
        ({"out": "pool.jsonl"}, "end its name in .parquet"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_read(
    wrong: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        imported("nowhere.jsonl", **{"out": tmp_path / "pool.parquet", **wrong})


def test_sources_that_cannot_be_read_are_named_with_the_remedy(tmp_path: Path) -> None:
    out = tmp_path / "pool.parquet"
    with pytest.raises(ConfigError, match="no such file, nor a folder"):
        imported(tmp_path / "nowhere.jsonl", out=out)
    (tmp_path / "a.xlsx").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"a.xlsx: not a kind that is read: use one of .parquet"):
        imported(tmp_path / "a.xlsx", out=out)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(ConfigError, match=r"a.parquet: not readable as .parquet .*fetch it again"):
        imported(tmp_path / "a.parquet", out=out)
    (tmp_path / "a.json").write_text('{"a": 1}')
    with pytest.raises(ConfigError, match="neither a JSON list nor an object of lists"):
        imported(tmp_path / "a.json", out=out)
    with pytest.raises(ConfigError, match="no prompt to hold out"):
        hold_out([str(jsonl(tmp_path / "empty.jsonl", {"x": 1}))])


def test_a_pool_is_never_overwritten_nor_written_empty(tmp_path: Path) -> None:
    raw = jsonl(tmp_path / "raw.jsonl", {"text": FIRST})
    made = imported(raw, out=tmp_path / "pool.parquet")
    with pytest.raises(ConfigError, match="exists, and a pool never changes"):
        imported(raw, out=made.pool)
    bad = jsonl(tmp_path / "bad.jsonl", {"text": ""})
    with pytest.raises(ConfigError, match=r"no row of 1 is kept: .*other.dropped.parquet says why"):
        imported(bad, out=tmp_path / "other.parquet")
    assert not (tmp_path / "other.parquet").exists()
