"""Panels of judges: early exit, gold pairs, and that nothing is asked or made twice."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.records import Agreement, Calibration, Generation, Pair, Reason, Record, Verdict
from pipeline.stages import read_part
from pipeline.storage import open_store
from tests.e2e.here import build
from tests.e2e.world import IMAGES, Project, parts, shipped

R = TypeVar("R", bound=Record)

PANEL = IMAGES.replace("quota = 12", "quota = 30").replace(
    'judges = ["objects-pieces", "objects-palette"]',
    'judges = ["objects-pieces", "objects-palette", "objects-outlines"]',
)
FULL = PANEL.replace('kind = "majority"\nvotes = 1', 'kind = "unanimous"\nvotes = 2')
EXIT = FULL.replace("votes = 2", "votes = 2\nearly_exit = true\naudit = 0.2")


def rows(record: type[R], run: Path, stage: str, before: frozenset[Path] = frozenset()) -> list[R]:
    store = open_store(str(run))
    keys = [str(path.relative_to(run)) for path in parts(run, stage) if path not in before]
    return [row for key in keys for row in read_part(record, key, store)]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which every judge was asked about every pair. Do not write to it."""
    folder = tmp_path_factory.mktemp("full")
    build(Project.write(folder / "project", FULL).settings(), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def early(full: Path) -> Path:
    """The same prompts, judged until a pair is settled. Do not write to it."""
    folder = full.parent
    build(Project.write(folder / "early", EXIT).settings(), folder / "early-run")
    return folder / "early-run"


@pytest.mark.slow
def test_early_exit_keeps_the_same_pairs_and_asks_less(full: Path, early: Path) -> None:
    kept = {row.pair_id for row in rows(Agreement, full, "agree") if row.kept}
    labels = {(row.pair_id, row.winner_id) for row in rows(Agreement, full, "agree") if row.kept}
    assert len(kept) >= 30
    assert {(row.pair_id, row.winner_id) for row in rows(Agreement, early, "agree") if row.kept} == labels
    assert {entry.pair_id for entry in shipped(early)} == {entry.pair_id for entry in shipped(full)} == kept
    asked = Counter(row.judge for row in rows(Verdict, early, "judge"))
    everything = Counter(row.judge for row in rows(Verdict, full, "judge"))
    assert asked["objects-pieces"] == everything["objects-pieces"]
    assert asked["objects-outlines"] < everything["objects-outlines"]
    verdicts = {(v.id, v.choice) for v in rows(Verdict, early, "judge")}
    assert verdicts < {(v.id, v.choice) for v in rows(Verdict, full, "judge")}


@pytest.mark.slow
def test_audited_pairs_are_asked_of_all_judges(full: Path, early: Path) -> None:
    agreements = [row for row in rows(Agreement, early, "agree") if row.reason not in NEVER_ASKED]
    audited = [row for row in agreements if row.audited]
    assert 0 < len(audited) < len(agreements)
    assert {len(row.votes) for row in audited} == {3}
    assert {len(row.votes) for row in agreements if not row.audited} == {2, 3}
    votes = {row.pair_id: row.votes for row in rows(Agreement, full, "agree")}
    assert all(row.votes == votes[row.pair_id] for row in audited)
    assert all(row.audited for row in rows(Agreement, full, "agree"))


NEVER_ASKED = {Reason.GOLD, Reason.SAME_MEDIA, Reason.MISSING_MEDIA}


@pytest.mark.slow
def test_gold_pairs_calibrate_and_never_ship(full: Path) -> None:
    gold = {pair.id: pair for pair in rows(Pair, full, "pair") if pair.gold}
    assert gold
    assert not gold.keys() & {entry.pair_id for entry in shipped(full)}
    assert gold.keys() == {verdict.pair_id for verdict in rows(Verdict, full, "gold")}
    assert not gold.keys() & {verdict.pair_id for verdict in rows(Verdict, full, "judge")}
    calibrations = rows(Calibration, full, "calibrate")
    assert [row.judge for row in calibrations] == ["objects-outlines", "objects-palette", "objects-pieces"]
    for row in calibrations:
        counted = row.right + row.wrong + row.ties + row.inconsistent + row.invalid
        assert 0 < counted <= len(gold)


@pytest.mark.slow
def test_what_was_answered_is_not_asked_again(full: Path, tmp_path: Path) -> None:
    """With no media left, only verdicts that are there already can make the new settings' parts."""
    run = tmp_path / "run"
    shutil.copytree(full, run)
    shutil.rmtree(run / "media")
    before = frozenset(parts(run, "judge"))
    with pytest.raises(AssertionError, match="shard/"):  # the shards do need media
        build(Project.write(tmp_path / "project", EXIT).settings(), run)
    again = {row.id for row in rows(Verdict, run, "judge", before)}
    assert 0 < len(again) < len({row.id for row in rows(Verdict, full, "judge")})


@pytest.mark.slow
def test_a_generator_more_leaves_what_is_made(full: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(full, run)
    before = frozenset(parts(run, "generate"))
    for path in before:
        mark(path)
    wider = FULL.replace('"scene/dreamy"]', '"scene/dreamy", "scene/literal"]')
    build(Project.write(tmp_path / "project", wider).settings(), run)
    made: list[Generation] = rows(Generation, run, "generate", before)
    old = {row.id for row in rows(Generation, full, "generate")}
    assert {row.id for row in made if row.licence == "marked"} == {row.id for row in made} & old
    assert any(row.generator == "scene/literal" for row in made)
    assert any(row.generator != "scene/literal" and row.licence == "marked" for row in made)


def mark(path: Path) -> None:
    """Change a column that no id covers, so that rows taken over can be told from rows made anew."""
    table = pq.read_table(path)
    marked = pa.array(["marked"] * len(table), pa.string())
    index = table.schema.get_field_index("licence")
    table = table.set_column(index, table.schema.field("licence"), marked)
    pq.write_table(table, path, write_page_checksum=True)
