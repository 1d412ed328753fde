"""The loader over real shards: exact order, exact resume, any ranks and threads, filters, damage."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pipeline import media
from pipeline.errors import ConfigError, CorruptError, StorageError
from pipeline.train.data import Batch, nearest_size, pixels, source, undecoded
from pipeline.train.settings import Data, Resolution
from pipeline.train.shards import Catalogue, Share
from tests.unit.train_shards import picture, write_run

SMALL = (Resolution(width=32, height=32),)


def data(*runs: Path | str, **more: object) -> Data:
    return Data(**{"runs": tuple(map(str, runs)), "sizes": SMALL, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_run(str(folder), 24, category="alignment")
    write_run(str(folder), 12, category="portrait")
    write_run(str(folder), 8, category="aesthetics", licence="research")
    return folder


def seen(
    given: Data, step: int, count: int, *, threads: int = 2, ranks: int = 1, batch: int = 6, seed: int = 0
) -> list[list[tuple[str, int, bytes]]]:
    """What all ranks together get in ``count`` steps from ``step`` on."""
    pairs = source(given, batch=batch, seed=seed)
    streams = [
        islice(pairs.batches(step, threads=threads, rank=rank, ranks=ranks), count) for rank in range(ranks)
    ]
    return [sorted(item for part in parts for item in named(part)) for parts in zip(*streams, strict=True)]


def named(batch: Batch) -> list[tuple[str, int, bytes]]:
    assert all(item.pixels is not None for item in batch.items)
    return [
        (item.sample.pair_id, item.draw, item.pixels.tobytes())
        for item in batch.items
        if item.pixels is not None
    ]


def test_an_epoch_holds_every_pair_once_with_its_own_media(run: Path) -> None:
    pairs = source(data(run), batch=6, seed=0)
    items = [item for batch in islice(pairs.batches(0, threads=2), 6) for item in batch.items]
    assert len({item.sample.pair_id for item in items}) == 36
    for item in items:
        assert item.sample.about["pair_id"] == item.sample.pair_id
        winner, loser = (media.decode(side, "image/jpeg") for side in (item.sample.winner, item.sample.loser))
        assert item.pixels is not None
        np.testing.assert_array_equal(item.pixels, np.stack([winner, loser]))
        number = int(item.sample.prompt.split()[4])
        assert item.sample.winner == picture(2 * number, 32, 32).data


@pytest.mark.parametrize(("threads", "ranks"), [(1, 1), (4, 1), (2, 2), (3, 3)])
def test_threads_and_ranks_change_nothing(run: Path, threads: int, ranks: int) -> None:
    assert seen(data(run), 0, 8, threads=threads, ranks=ranks) == seen(data(run), 0, 8)


def test_resume_is_exact_twice_and_with_other_workers(run: Path) -> None:
    whole = seen(data(run), 0, 15)
    parts = [
        *seen(data(run), 0, 4, threads=1),
        *seen(data(run), 4, 5, threads=3, ranks=2),
        *seen(data(run), 9, 6, threads=2, ranks=3),
    ]
    assert parts == whole


def test_seeds_give_other_orders(run: Path) -> None:
    assert seen(data(run), 0, 2, seed=1) != seen(data(run), 0, 2, seed=2)


def test_licence_categories_and_weights(run: Path) -> None:
    def categories(given: Data, steps: int) -> list[str]:
        pairs = source(given, batch=2, seed=0)
        batches = islice(pairs.batches(0, threads=1, decode=undecoded), steps)
        return sorted(item.sample.category for batch in batches for item in batch.items)

    assert categories(data(run), 18) == ["alignment"] * 24 + ["portrait"] * 12
    assert categories(data(run, licence="research"), 22).count("aesthetics") == 8
    weighted = (Share(name="alignment", weight=0.25), Share(name="portrait", weight=2.0))
    assert categories(data(run, categories=weighted), 15) == ["alignment"] * 6 + ["portrait"] * 24


def test_unknown_category_and_missing_licence_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no shards of 'portrit': did you mean 'portrait'"):
        Catalogue([str(run)], shares=[Share(name="portrit")])
    with pytest.raises(
        StorageError, match=r"no manifest\.json: no finished build lies there: see data\.runs"
    ):
        Catalogue([str(tmp_path)])
    write_run(str(tmp_path), 4, licence="research")
    with pytest.raises(ConfigError, match="no shards of licence profile permissive"):
        Catalogue([str(tmp_path)])


def test_resolutions_never_mix_and_nearest_fits(tmp_path: Path) -> None:
    write_run(str(tmp_path), 24, sizes=((64, 32), (32, 64), (60, 30)))
    sizes = (Resolution(width=64, height=32), Resolution(width=32, height=64))
    pairs = source(data(tmp_path, sizes=sizes), batch=4, seed=0)
    assert pairs.order.steps == 6
    for batch in islice(pairs.batches(0, threads=2), 6):
        wide = {item.sample.about["winner"]["width"] > 32 for item in batch.items}
        assert wide == {batch.size.width == 64}
        for item in batch.items:
            assert item.pixels is not None
            assert item.pixels.shape == (2, 1, batch.size.height, batch.size.width, 3)


def test_nearest_size_prefers_shape_then_area() -> None:
    sizes = [Resolution(width=w, height=h) for w, h in ((512, 512), (1024, 1024), (1216, 832))]
    assert nearest_size({"width": 1000, "height": 1000}, sizes) == 1
    assert nearest_size({"width": 1200, "height": 800}, sizes) == 2
    assert nearest_size({"width": 100, "height": 100}, sizes) == 0


def test_held_out_prompts_are_never_trained_on(run: Path) -> None:
    pairs = source(data(run, held_out=0.3), batch=4, seed=0)
    held = {pairs.catalogue.read(int(row)).about["prompt_id"] for row in pairs.held_out}
    assert 3 < len(pairs.held_out) < 24
    batches = islice(pairs.batches(0, threads=1, decode=undecoded), 3 * pairs.order.steps)
    assert not held & {item.sample.about["prompt_id"] for batch in batches for item in batch.items}
    again = source(data(run, held_out=0.3), batch=2, seed=9)
    assert again.held_out.tolist() == pairs.held_out.tolist(), "whatever the seed"


def test_videos_give_as_many_frames_as_are_asked_for(tmp_path: Path) -> None:
    write_run(str(tmp_path), 4, category="motion", sizes=((64, 48),), frames=5)
    wanted = Resolution(width=32, height=32, frames=5)
    batch = next(source(data(tmp_path, sizes=(wanted,)), batch=4, seed=0).batches(0, threads=2))
    assert batch.items[0].pixels is not None
    assert batch.items[0].pixels.shape == (2, 5, 32, 32, 3)
    sample = batch.items[0].sample
    with pytest.raises(ConfigError, match=r"has 5 frames, data\.sizes asks for 9"):
        pixels(sample, Resolution(width=32, height=32, frames=9))


def test_a_tar_that_was_cut_is_refused_before_training(tmp_path: Path) -> None:
    write_run(str(tmp_path), 4, shards=1)
    tar = next(tmp_path.rglob("*.tar"))
    tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(CorruptError, match=r"bytes, by the manifest .*run `vipo verify`"):
        Catalogue([str(tmp_path)])


def test_an_index_of_another_tar_is_seen_at_once(tmp_path: Path) -> None:
    write_run(str(tmp_path / "a"), 4, shards=1)
    write_run(str(tmp_path / "b"), 4, shards=1, category="portrait", sizes=((64, 64),))
    mine, other = (next((tmp_path / name).rglob("*.tar")) for name in "ab")
    mine.write_bytes(other.read_bytes())
    manifest = tmp_path / "a" / "manifest.json"
    about = json.loads(manifest.read_text())
    about["shards"][0]["bytes"] = mine.stat().st_size
    manifest.write_text(json.dumps(about))
    with pytest.raises(CorruptError, match="is damaged: run `vipo repair`"):
        Catalogue([str(tmp_path / "a")]).read(0)


def test_a_flipped_byte_is_seen_when_hashes_are_compared(tmp_path: Path) -> None:
    write_run(str(tmp_path), 4, shards=1)
    tar = next(tmp_path.rglob("*.tar"))
    damaged = bytearray(tar.read_bytes())
    damaged[damaged.index(b"\xff\xd9") - 20] ^= 1  # inside of the first picture
    tar.write_bytes(damaged)
    pairs = Catalogue([str(tmp_path)], exact=True)
    with pytest.raises(CorruptError, match="is damaged"):
        pairs.read(0)
    assert pairs.about(0)["pair_id"] == pairs.pair_id(0), "its JSON is read alone"


def test_damage_found_by_a_thread_stops_the_loader(tmp_path: Path) -> None:
    write_run(str(tmp_path), 8, shards=1)
    pairs = source(data(tmp_path), batch=4, seed=0)
    tar = next(tmp_path.rglob("*.tar"))
    tar.write_bytes(bytes(tar.stat().st_size))
    with pytest.raises(CorruptError, match="is damaged"):
        list(islice(pairs.batches(0, threads=2), 2))


@pytest.mark.slow
def test_s3_gives_the_same_batches(bucket: str, tmp_path: Path) -> None:
    write_run(f"{bucket}/run", 8)
    write_run(str(tmp_path), 8)
    assert seen(data(f"{bucket}/run"), 0, 3, batch=4) == seen(data(tmp_path), 0, 3, batch=4)
