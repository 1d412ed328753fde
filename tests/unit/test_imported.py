"""Files in Pick-a-Pic's columns become a run: the same to the byte, however often it was broken off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import api
from pipeline.cli import main
from pipeline.dataset.imported import Packed, dropped, import_pairs
from pipeline.errors import ConfigError, CorruptError, StorageError
from pipeline.storage import open_store
from pipeline.train.shards import Catalogue, Sample, Share
from tests.e2e.world import tree
from tests.unit.pick_a_pic import SCHEMA, encoded, row, write
from tests.unit.train_shards import write_run

SMALL = 100_000
"""Bytes of a shard: about a row group of ten pairs."""


def samples(run: Path | str, **more: Any) -> dict[str, Sample]:
    """Return what training reads, by prompt."""
    held = Catalogue([str(run)], licence="research", exact=True, **more)
    return {sample.prompt: sample for sample in map(held.read, range(len(held)))}


def typed(kind: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(f.name, kind) if f.name.startswith("label") else f for f in SCHEMA])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of several shards; some rows are ties, and some of the second lie in the first too."""
    folder = tmp_path_factory.mktemp("files")
    write(folder / "a.parquet", [row(n) for n in range(40)])
    ties = {"label_0": 0.5, "label_1": 0.5}
    write(folder / "b.parquet", [row(n, **(ties if n % 3 == 0 else {})) for n in range(32, 62)])
    return folder


@pytest.fixture(scope="module")
def whole(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    import_pairs([str(files)], str(run), shard_bytes=SMALL)
    return run


@pytest.mark.parametrize(
    ("kind", "won", "lost"),
    [
        (pa.float64(), 1.0, 0.0),
        (pa.float32(), 0.7, 0.3),
        (pa.int64(), 1, 0),
        (pa.string(), "1.0", "0.0"),
        (pa.large_string(), "1", "0"),
        (pa.bool_(), True, False),
    ],
    ids=str,
)
def test_the_winner_that_is_trained_on_has_the_larger_label(
    kind: pa.DataType, won: Any, lost: Any, tmp_path: Path
) -> None:
    rows = [
        row(0, caption="left", label_0=won, label_1=lost),
        row(0, caption="right", label_0=lost, label_1=won),
    ]
    import_pairs([write(tmp_path / "a.parquet", rows, typed(kind))], str(tmp_path / "run"))
    found = samples(tmp_path / "run")
    assert (found["left"].winner, found["left"].loser) == (encoded(0), encoded(1))
    assert (found["right"].winner, found["right"].loser) == (encoded(1), encoded(0))


def test_every_row_is_a_pair_or_counted_under_one_reason(tmp_path: Path) -> None:
    bad: list[dict[str, Any]] = [
        {"label_0": 0.5, "label_1": 0.5},
        {"label_0": None, "label_1": None},
        {"label_0": 7.0, "label_1": 3.0},
        {"best_image_uid": "right 4", "image_1_uid": "right 4"},
        {"caption": ""},
        {"jpg_1": None},
        {"jpg_1": encoded(6)},
        {"jpg_0": encoded(7)[:500]},
        {"jpg_0": b"RIFF and so on"},
        {"caption": "cat 20", "jpg_0": encoded(8), "jpg_1": encoded(10)},
    ]
    rows = [row(n - n % 2, **own) for n, own in enumerate(bad)]
    rows += [row(20, jpg_0=encoded(8), jpg_1=encoded(10)), *(row(n) for n in (30, 31))]
    packed = import_pairs([write(tmp_path / "a.parquet", rows)], str(tmp_path / "run"))
    assert sum(one.kept for one in packed) == 3
    assert dropped(packed) == dict.fromkeys(
        [
            "a tie",
            "no label",
            "labels are no two shares of 1",
            "labels and best_image_uid disagree",
            "no prompt",
            "a medium is missing",
            "both media are the same",
            "a medium does not decode",
            "a medium is no JPEG",
            "there already",
        ],
        1,
    )
    assert set(samples(tmp_path / "run")) == {"cat 20", "cat 30", "cat 31"}
    assert api.verify(str(tmp_path / "run")).pairs == 3


def test_columns_of_others(tmp_path: Path) -> None:
    """Only five columns are needed, and images may be stored as the library datasets does."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    kinds = {"jpg_0": image, "jpg_1": image, "label_0": pa.int64(), "label_1": pa.int64()}
    schema = pa.schema([*kinds.items(), ("caption", pa.large_string()), ("more", pa.int64())])
    one = {"bytes": encoded(0), "path": None}, {"bytes": encoded(1), "path": "b.jpg"}
    rows = [{"jpg_0": one[0], "jpg_1": one[1], "label_0": 0, "label_1": 1, "caption": "é"}]
    import_pairs([write(tmp_path / "a.parquet", rows, schema)], str(tmp_path / "run"))
    found = samples(tmp_path / "run")["é"]
    assert (found.winner, found.loser) == (encoded(1), encoded(0))
    assert found.about["winner"]["generator"] == "unknown"


def test_a_caption_that_is_no_text_costs_its_own_row_only(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row(n) for n in range(3)], schema=SCHEMA)
    captions = pa.array([b"caf\xc3\xa9", b"caf\xe9", b"tea"], pa.binary()).view(pa.string())
    place = table.schema.get_field_index("caption")
    pq.write_table(table.set_column(place, "caption", captions), tmp_path / "a.parquet")
    assert dropped(import_pairs([str(tmp_path / "a.parquet")], str(tmp_path / "run"))) == {"no prompt": 1}
    assert set(samples(tmp_path / "run")) == {"café", "tea"}


def test_shards_are_cut_between_row_groups_and_verified(files: Path, whole: Path) -> None:
    packed = import_pairs([str(files)], str(whole), shard_bytes=SMALL)
    assert len(packed) > 3
    assert sum(one.rows for one in packed) == 70
    assert api.verify(str(whole)).pairs == sum(one.kept for one in packed) == 40 + 30 - 10 - 5
    assert dropped(packed) == {"a tie": 10, "there already": 5}
    for prompt, sample in samples(whole).items():
        number, origin = int(prompt.split()[1]), sample.about["imported"]
        assert sample.category == "pick_a_pic"
        assert origin["row"] == number - {"a.parquet": 0, "b.parquet": 32}[origin["file"]]


def test_it_is_the_same_to_the_byte_after_any_break(files: Path, whole: Path, tmp_path: Path) -> None:
    """Broken off behind each shard in turn, and gone on with."""
    counts = []

    def stop(_: Packed) -> None:
        counts.append(1)
        raise KeyboardInterrupt

    while True:
        try:
            import_pairs([str(files)], str(tmp_path), shard_bytes=SMALL, told=stop if len(counts) < 4 else id)
        except KeyboardInterrupt:
            assert not (tmp_path / "manifest.json").exists()
            continue
        break
    assert len(counts) == 4
    assert tree(tmp_path) == tree(whole)


def test_files_that_come_later_leave_what_there_is(files: Path, whole: Path, tmp_path: Path) -> None:
    first, second = (str(files / f"{name}.parquet") for name in "ab")
    import_pairs([first], str(tmp_path), shard_bytes=SMALL)
    before = tree(tmp_path)
    import_pairs([first, first, str(files / "[ab].parquet")], str(tmp_path), shard_bytes=SMALL)
    after = tree(tmp_path)
    assert after == tree(whole)
    assert {key: after[key] for key in before if key != "manifest.json"} == {
        key: value for key, value in before.items() if key != "manifest.json"
    }
    for other in ([second], [second, first]):
        with pytest.raises(ConfigError, match="an import of other files or under other settings"):
            import_pairs(other, str(tmp_path), shard_bytes=SMALL)
    with pytest.raises(ConfigError, match="an import of other files or under other settings"):
        import_pairs([first, second], str(tmp_path), shard_bytes=SMALL, licence="permissive")
    assert tree(tmp_path) == after


def test_labels_that_are_swapped_in_place_are_another_file(tmp_path: Path) -> None:
    """All sizes and bounds stay as they were, and so does the footer."""
    uri = tmp_path / "a.parquet"
    write(uri, [row(n) for n in range(4)])
    before = uri.read_bytes()
    import_pairs([str(uri)], str(tmp_path / "run"))
    write(uri, [row(n, label_0=float(n % 2), label_1=float(n % 2 == 0)) for n in range(4)])
    footer = int.from_bytes(before[-8:-4], "little") + 8
    assert uri.read_bytes()[-footer:] == before[-footer:]
    with pytest.raises(ConfigError, match="an import of other files"):
        import_pairs([str(uri)], str(tmp_path / "run"))


def test_a_tar_that_is_gone_is_made_again(files: Path, whole: Path, tmp_path: Path) -> None:
    import_pairs([str(files)], str(tmp_path), shard_bytes=SMALL)
    tar = sorted(tmp_path.rglob("*.tar"))[1]
    tar.unlink()
    import_pairs([str(files)], str(tmp_path), shard_bytes=SMALL)
    assert tree(tmp_path) == tree(whole)
    tar.unlink()
    with pytest.raises(StorageError, match=r"an import is here.*delete that \.tar and its \.parquet"):
        api.repair(str(tmp_path))


def test_a_row_group_that_is_damaged_costs_its_own_rows_only(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.parquet", [row(n) for n in range(30)])
    place = pq.ParquetFile(uri).metadata.row_group(1).column(0)
    with Path(uri).open("r+b") as file:
        file.seek(place.data_page_offset + place.total_compressed_size // 2)
        file.write(b"damaged")
    packed = import_pairs([uri], str(tmp_path / "run"))
    assert dropped(packed) == {"damaged in its shard or file": 10}
    assert set(samples(tmp_path / "run")) == {f"cat {n}" for n in (*range(10), *range(20, 30))}
    last = samples(tmp_path / "run")["cat 29"].about["imported"]
    assert (last["file"], last["row"]) == ("a.parquet", 29)


def test_what_is_no_pick_a_pic_is_refused_before_any_work(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    good = write(tmp_path / "a.parquet", [row(1)])
    schema = pa.schema([field for field in SCHEMA if field.name != "label_1"])
    bare = write(tmp_path / "b.parquet", [row(1)], schema)
    with pytest.raises(ConfigError, match=r"b\.parquet: no column label_1 among jpg_0, .*caption"):
        import_pairs([good, bare], run)
    other = write(tmp_path / "c.parquet", [row(1, label_0=None, label_1=None)], typed(pa.list_(pa.int8())))
    with pytest.raises(ConfigError, match="column label_0 is list"):
        import_pairs([good, other], run)
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no Parquet")
    with pytest.raises(CorruptError, match=r"d\.parquet: no readable Parquet"):
        import_pairs([good, str(tmp_path / "d.parquet")], run)
    with pytest.raises(StorageError, match=r"no \.parquet files"):
        import_pairs([good, str(tmp_path / "x*.parquet")], run)
    with pytest.raises(ConfigError, match="category = 'Pick-a-Pic' must be up to 50 characters of a-z"):
        import_pairs([good], run, category="Pick-a-Pic")
    assert not (tmp_path / "run").exists()
    ties = write(tmp_path / "e.parquet", [row(n, label_0=0.5, label_1=0.5) for n in range(3)])
    with pytest.raises(ConfigError, match=r"no row gives a pair \(3 a tie\)"):
        import_pairs([ties], run)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "settings.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a build"):
        import_pairs([good], str(tmp_path / "build"))


def test_runs_are_mixed_by_category_and_none_is_left_out_unsaid(whole: Path, tmp_path: Path) -> None:
    write_run(str(tmp_path), 6)
    both = [str(tmp_path), str(whole)]
    shares = [Share(name="alignment"), Share(name="pick_a_pic", weight=2.0)]
    mixed = Catalogue(both, shares=shares, licence="research")
    assert sorted(set(mixed.categories)) == ["alignment", "pick_a_pic"]
    assert len(mixed) == 6 + 55
    with pytest.raises(ConfigError, match=r"run: no shards of licence profile permissive: see data\.licence"):
        Catalogue(both, shares=shares)
    with pytest.raises(ConfigError, match=r"run: no shards of data\.categories"):
        Catalogue(both, shares=shares[:1], licence="research")
    with pytest.raises(ConfigError, match=r"no shards of 'pickapic': did you mean 'pick_a_pic'"):
        Catalogue(both, shares=[Share(name="pickapic")], licence="research")
    write_run(str(tmp_path), 4, category="portrait", licence="research")
    with pytest.raises(ConfigError, match="no shards of 'portrait' of licence profile permissive"):
        Catalogue([str(tmp_path)], shares=[Share(name="alignment"), Share(name="portrait")])


def test_the_command_counts_what_it_did(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["import", str(files), "--run", str(tmp_path), "--category", "people", "--licence", "permissive"]
    assert main(given) == 0
    said = capsys.readouterr().out
    assert "kept 40 of 40 rows of a.parquet: shard/people/" in said
    assert "70 rows" in said
    assert "a tie" in said
    assert f'data.runs = ["{tmp_path}"], data.licence = "permissive"' in said
    assert len(Catalogue([str(tmp_path)], shares=[Share(name="people")])) == 55


MEASURE = """
import sys
from pathlib import Path
from pipeline.errors import ConfigError
from pipeline.dataset.imported import import_pairs
peak = lambda: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM"))
import_pairs([sys.argv[1]], sys.argv[3])
before = peak()
import_pairs([sys.argv[2]], sys.argv[4])
print((peak() - before) // 1024)
"""


@pytest.mark.slow
def test_a_large_row_group_is_not_held_in_memory(tmp_path: Path) -> None:
    """128 MiB of images in one row group; what is behind a JPEG's end is not decoded."""
    rows = [row(n, jpg_0=encoded(n % 12) + bytes([n % 251]) * (1 << 18)) for n in range(512)]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    large = tmp_path / "large.parquet"
    pq.write_table(table, large, compression="none", use_dictionary=False, write_batch_size=8)
    assert pq.ParquetFile(large).num_row_groups == 1
    given = [write(tmp_path / "small.parquet", rows[:8]), str(large), tmp_path / "one", tmp_path / "two"]
    run = subprocess.run([sys.executable, "-c", MEASURE, *map(str, given)], capture_output=True, text=True)
    assert int(run.stdout) < 110, "MiB more than for eight rows"
    assert api.verify(str(tmp_path / "two")).pairs == 512


@pytest.mark.slow
def test_files_and_runs_in_s3(bucket: str, files: Path, whole: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        open_store(f"{bucket}/files").put(name, (files / name).read_bytes())
    import_pairs([f"{bucket}/files/*.parquet"], f"{bucket}/imported", shard_bytes=SMALL)
    assert tree(f"{bucket}/imported") == tree(whole)
    assert samples(f"{bucket}/imported") == samples(whole)
