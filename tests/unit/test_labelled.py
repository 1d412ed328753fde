"""Pairs with their media out of the shards of a real run, and out of Pick-a-Pic's columns."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.labelled import Labelled, Skip, parquet_pairs, shard_pairs
from pipeline.dataset.manifest import read_manifest
from pipeline.errors import ConfigError, CorruptError, StorageError
from pipeline.storage import open_store
from tests.e2e.world import shipped
from tests.unit.pick_a_pic import SCHEMA, row, write


@pytest.mark.slow
def test_a_limit_draws_the_same_pairs_and_more_of_them_if_it_is_higher(images_run: Path) -> None:
    store = open_store(str(images_run))

    def drawn(limit: int | None) -> set[str]:
        return {one.id for one in shard_pairs(store, "alignment", limit=limit) if isinstance(one, Labelled)}

    assert drawn(3) == drawn(3) < drawn(7) < drawn(None) == drawn(10**6)
    assert (len(drawn(3)), len(drawn(7)), len(drawn(0))) == (3, 7, 0)


@pytest.mark.slow
def test_damage_in_a_shard_costs_only_the_pairs_that_it_hit(images_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(images_run, run)
    entry = shipped(run)[0]
    shard = next(s for s in read_manifest(open_store(str(run))).shards if entry.shard in s.tar)
    winner = next(member for member in entry.members if ".winner." in member.name)
    with (run / shard.tar).open("r+b") as tar:
        tar.seek(winner.offset + winner.size // 2)
        tar.write(b"damaged")
    rows = list(shard_pairs(open_store(str(run)), "alignment"))
    assert Counter(one for one in rows if isinstance(one, Skip)) == {Skip.DAMAGED: 1}
    assert len(rows) == len(shipped(run))
    shutil.rmtree(run / "prompts")
    left = [
        one
        for one in shard_pairs(open_store(str(run)), "alignment", checks=True)
        if isinstance(one, Labelled)
    ]
    assert len(left) == len(rows) - 1
    assert not any(one.checks.objects for one in left), "without the run's prompts nothing is to be checked"


@pytest.mark.slow
def test_a_category_without_shards_is_refused(images_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no shards of category 'alinment'.*alignment"):
        list(shard_pairs(open_store(str(images_run)), "alinment"))
    with pytest.raises(StorageError, match="run build again"):
        list(shard_pairs(open_store(str(tmp_path)), "alignment"))


def captions(uri: str, limit: int | None = None) -> set[str]:
    return {found.prompt for found in parquet_pairs(uri, limit=limit) if isinstance(found, Labelled)}


def test_labels_are_read_as_pick_a_pic_means_them(tmp_path: Path) -> None:
    labels: Mapping[tuple[float | None, float | None], str | None] = {
        (1.0, 0.0): "first",
        (0.0, 1.0): "second",
        (0.5, 0.5): None,
        (None, None): None,
        (float("nan"), float("nan")): None,
    }
    rows = [row(n, label_0=one, label_1=other) for n, (one, other) in enumerate(labels)]
    found = list(parquet_pairs(write(tmp_path / "a.parquet", rows)))
    assert [one.label for one in found if isinstance(one, Labelled)] == list(labels.values())


def test_a_row_group_that_is_damaged_costs_its_own_rows_only(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.parquet", [row(n) for n in range(30)])
    place = pq.ParquetFile(uri).metadata.row_group(1).column(0)
    with Path(uri).open("r+b") as file:
        file.seek(place.data_page_offset + place.total_compressed_size // 2)
        file.write(b"damaged")
    found = list(parquet_pairs(uri))
    assert Counter(one for one in found if isinstance(one, Skip)) == {Skip.DAMAGED: 10}
    assert captions(uri) == {f"cat {n}" for n in (*range(10), *range(20, 30))}
    assert len(list(parquet_pairs(uri, limit=30))) == 30


def test_a_limit_draws_rows_by_what_names_them(tmp_path: Path) -> None:
    rows = [row(n) for n in range(40)]
    one = write(tmp_path / "one/a.parquet", rows)
    assert len(captions(one, 7)) == 7
    assert captions(one, 7) == captions(one, 7) < captions(one, 20) < captions(one, 99) == captions(one)
    # In other files, order and row groups the same rows are drawn.
    write(tmp_path / "two/b.parquet", rows[25::-1], group=3)
    write(tmp_path / "two/a.parquet", rows[:25:-1])
    assert captions(str(tmp_path / "two"), 7) == captions(one, 7)
    assert captions(str(tmp_path / "two/[ab].par*"), 7) == captions(one, 7)
    assert captions(write(tmp_path / "two/c[1].parquet", rows[:3])) == {"cat 0", "cat 1", "cat 2"}
    # Without columns that name it, a row is where it stands.
    schema = pa.schema([field for field in SCHEMA if not field.name.endswith(("_uid", "_id"))])
    bare = write(tmp_path / "three/a.parquet", rows, schema)
    assert captions(bare, 7) == captions(bare, 7) < captions(bare, 20)


def test_what_is_no_pick_a_pic_is_refused_by_name(tmp_path: Path) -> None:
    schema = pa.schema([field for field in SCHEMA if field.name != "caption"])
    with pytest.raises(ConfigError, match="no column caption"):
        list(parquet_pairs(write(tmp_path / "a.parquet", [row(1)], schema)))
    texts = pa.schema([pa.field("jpg_0", pa.string()) if f.name == "jpg_0" else f for f in SCHEMA])
    with pytest.raises(ConfigError, match="column jpg_0 is string"):
        list(parquet_pairs(write(tmp_path / "b.parquet", [row(1, jpg_0="a path")], texts)))
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no Parquet")
    with pytest.raises(CorruptError, match=r"c\.parquet: no readable Parquet"):
        list(parquet_pairs(str(tmp_path / "c.parquet")))
    with pytest.raises(StorageError, match=r"d\.parquet"):
        list(parquet_pairs(str(tmp_path / "d.parquet")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match=r"no \.parquet files"):
        list(parquet_pairs(str(tmp_path / "empty")))


@pytest.mark.slow
def test_files_in_s3_are_read_too(bucket: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [row(n) for n in range(12)])
    open_store(f"{bucket}/pick").put("data/a.parquet", Path(path).read_bytes())
    assert captions(f"{bucket}/pick", 5) == captions(f"{bucket}/pick/data/a.parquet", 5)
    assert captions(f"{bucket}/pick") == captions(path)
