"""What ``verify`` finds: every kind of damage, by the name of the file and of the record in it."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import api
from pipeline.dataset.manifest import KEY, Shard, read_manifest
from pipeline.errors import CorruptError, StorageError
from pipeline.records import Member, ShardEntry
from pipeline.stages import read_part
from pipeline.storage import open_store
from tests.e2e.world import shipped

pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True, slots=True)
class Damaged:
    """A copy of the undisturbed run, and its second shard."""

    run: Path
    shard: Shard
    entries: list[ShardEntry]

    @property
    def tar(self) -> Path:
        return self.run / self.shard.tar

    @property
    def index(self) -> Path:
        return self.run / self.shard.index

    def member(self, role: str) -> Member:
        """Return a member of the shard's last sample."""
        return next(member for member in self.entries[-1].members if member.name.endswith(role))

    def flip(self, offset: int) -> None:
        data = bytearray(self.tar.read_bytes())
        data[offset] ^= 1
        self.tar.write_bytes(data)

    def rewrite_index(self, change: Callable[[list[dict[str, Any]]], object]) -> None:
        table = pq.read_table(self.index)
        rows = table.to_pylist()
        change(rows)
        pq.write_table(type(table).from_pylist(rows, schema=table.schema), self.index)

    def rewrite_manifest(self, change: Callable[[dict[str, Any]], object]) -> None:
        about = json.loads((self.run / KEY).read_text())
        change(about)
        (self.run / KEY).write_text(json.dumps(about))


@pytest.fixture
def damaged(images_run: Path, tmp_path: Path) -> Damaged:
    run = tmp_path / "run"
    shutil.copytree(images_run, run)
    store = open_store(str(run))
    shard = read_manifest(store).shards[1]
    return Damaged(run, shard, list(read_part(ShardEntry, shard.index, store)))


def test_an_undamaged_run_is_counted(images_run: Path) -> None:
    seen: list[Shard] = []
    found = api.verify(str(images_run), seen.append)
    manifest = read_manifest(open_store(str(images_run)))
    assert seen == list(manifest.shards)
    assert len(seen) >= 2
    assert found.pairs == len(shipped(images_run)) == sum(item.pairs for item in manifest.categories)
    assert found.media == 2 * found.pairs
    assert found.bytes == sum((images_run / shard.tar).stat().st_size for shard in seen)


def assert_found(damaged: Damaged, *said: str) -> None:
    with pytest.raises(CorruptError) as caught:
        api.verify(str(damaged.run))
    message = str(caught.value)
    assert "\n" not in message
    for each in said:
        assert each in message


@pytest.mark.parametrize("role", ["json", "loser.jpg", "prompt.txt", "winner.jpg"])
def test_a_flipped_bit_in_a_member(damaged: Damaged, role: str) -> None:
    member = damaged.member(role)
    damaged.flip(member.offset + member.size // 2)
    assert_found(damaged, damaged.shard.tar, member.name, "SHA-256 differs from the index's")


@pytest.mark.parametrize("into_header", [0, 124, 300])
def test_a_flipped_bit_in_a_header(damaged: Damaged, into_header: int) -> None:
    member = damaged.member("loser.jpg")
    damaged.flip(member.offset - tarfile.BLOCKSIZE + into_header)
    assert_found(damaged, damaged.shard.tar, member.name, "torn at byte")


def test_a_flipped_bit_in_the_padding(damaged: Damaged) -> None:
    member = next(item for entry in damaged.entries for item in entry.members if item.size % 512)
    damaged.flip(member.offset + member.size)
    assert_found(damaged, damaged.shard.tar, "SHA-256 differs from the manifest's")


@pytest.mark.parametrize("cut", [1, 512, 5_000, 100_000])
def test_a_truncated_tar(damaged: Damaged, cut: int) -> None:
    data = damaged.tar.read_bytes()
    damaged.tar.write_bytes(data[:-cut])
    assert_found(damaged, damaged.shard.tar)


def test_bytes_after_the_end(damaged: Damaged) -> None:
    with damaged.tar.open("ab") as file:
        file.write(bytes(512))
    assert_found(damaged, damaged.shard.tar, "bytes, the manifest says")


def test_the_tar_of_another_shard(damaged: Damaged) -> None:
    other = read_manifest(open_store(str(damaged.run))).shards[0]
    shutil.copyfile(damaged.run / other.tar, damaged.tar)
    assert_found(damaged, damaged.shard.tar, damaged.entries[0].members[0].name)


@pytest.mark.parametrize("part", ["tar", "index"])
def test_a_missing_file(damaged: Damaged, part: str) -> None:
    path: Path = getattr(damaged, part)
    path.unlink()
    assert_found(damaged, str(path.relative_to(damaged.run)), "is missing")


def test_an_index_that_lacks_a_pair(damaged: Damaged) -> None:
    damaged.rewrite_index(lambda rows: rows.pop())
    assert_found(damaged, damaged.shard.index, "the manifest says")


def test_an_index_that_names_another_hash(damaged: Damaged) -> None:
    damaged.rewrite_index(lambda rows: rows[0]["members"][1].update(sha256="0" * 64))
    assert_found(damaged, damaged.shard.tar, damaged.entries[0].members[1].name, "SHA-256 differs")


def test_an_index_that_hides_a_winner(damaged: Damaged) -> None:
    damaged.rewrite_index(lambda rows: rows[-1]["members"].pop())
    assert_found(damaged, damaged.shard.tar, damaged.entries[-1].key)


def test_a_damaged_index(damaged: Damaged) -> None:
    damaged.index.write_bytes(damaged.index.read_bytes()[:-20])
    assert_found(damaged, damaged.shard.index, "not a readable part")


def test_a_pair_in_two_shards(damaged: Damaged) -> None:
    def name_it_again(about: dict[str, Any]) -> None:
        about["shards"].append(about["shards"][1])

    damaged.rewrite_manifest(name_it_again)
    assert_found(damaged, damaged.shard.tar, damaged.entries[0].key, "twice")


def test_a_pair_twice_in_one_shard(damaged: Damaged) -> None:
    damaged.rewrite_index(lambda rows: rows[1].update(pair_id=rows[0]["pair_id"]))
    assert_found(damaged, damaged.shard.tar, damaged.entries[1].key, "twice")


def test_a_count_that_the_shards_do_not_have(damaged: Damaged) -> None:
    damaged.rewrite_manifest(lambda about: about["categories"][0].update(pairs=99))
    assert_found(damaged, KEY, "alignment", "99")


@pytest.mark.parametrize("given", ["", "[]", "{", '{"shards": 3}'])
def test_a_damaged_manifest(damaged: Damaged, given: str) -> None:
    (damaged.run / KEY).write_text(given)
    assert_found(damaged, KEY, "damaged")


def test_an_unfinished_run_is_no_corrupt_one(damaged: Damaged) -> None:
    (damaged.run / KEY).unlink()
    with pytest.raises(StorageError, match=r"the build has not finished: run build again"):
        api.verify(str(damaged.run))


def test_a_medium_of_another_size_than_its_json_says(damaged: Damaged) -> None:
    """All hashes agree, as if a faulty stage had written it: only decoding can tell."""
    _rewrite_tar(damaged, lambda about: about["winner"].update(width=512))
    assert_found(damaged, damaged.shard.tar, damaged.entries[-1].key, "width=256", "width=512")


def test_a_prompt_that_differs_from_its_json(damaged: Damaged) -> None:
    _rewrite_tar(damaged, lambda about: about.update(prompt="another prompt"))
    assert_found(damaged, damaged.shard.tar, damaged.entries[-1].key, "prompt.txt and json disagree")


def _rewrite_tar(damaged: Damaged, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the last sample's JSON, and make tar, index and manifest agree on it."""
    from pipeline.storage.tar import write_tar

    with tarfile.open(damaged.tar) as tar:
        files = {item.name: _content(tar, item) for item in tar.getmembers()}
    name = damaged.member("json").name
    about = json.loads(files[name])
    change(about)
    files[name] = json.dumps(about).encode()
    members, sha256, size = write_tar(damaged.tar, files.items())

    def put_members(rows: list[dict[str, Any]]) -> None:
        for number, row in enumerate(rows):
            row["members"] = [dataclasses.asdict(item) for item in members[4 * number : 4 * number + 4]]

    damaged.rewrite_index(put_members)
    damaged.rewrite_manifest(lambda about: about["shards"][1].update(sha256=sha256, bytes=size))


def _content(tar: tarfile.TarFile, item: tarfile.TarInfo) -> bytes:
    return (tar.extractfile(item) or io.BytesIO()).read()
