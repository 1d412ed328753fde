"""A pool by its name, a category's grammar or a file; and a balanced draw from it, written as a pool."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.config import nearest
from pipeline.errors import ConfigError
from pipeline.pools.balance import Drawn, Target, draw
from pipeline.pools.grown import capacity, categories, grow
from pipeline.pools.imports.tables import POOL, put, require_free
from pipeline.pools.user import read
from pipeline.records import Prompt
from pipeline.storage import open_store, read_uri

_ROW_GROUP = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A pool that can be read again and again; ``uri`` of its file, or None for a grown one.

    ``dropped`` counts the reasons of what an import left out, if its file lies beside the pool.
    """

    name: str
    uri: str | None
    prompts: Callable[[], Iterator[Prompt]]
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A draw and the file it was written to; ``licences`` are those of its prompts."""

    uri: str
    sha256: str
    bytes: int
    licences: tuple[str, ...]
    drawn: Drawn

    def toml(self) -> str:
        """Return the lines of a category file that name this pool."""
        licence = " and ".join(self.licences)  # each row names its own, which is what counts
        return f'[pool]\nuri = "{self.uri}"\nsha256 = "{self.sha256}"\nlicence = "{licence}"\n'


def given(name: str, count: int | None = None, *, licence: str = "") -> Given:
    """Return the pool called ``name``: a category whose grammar grows ``count`` prompts, or a file's address.

    ``count`` None: all that the grammar gives. ``licence`` is that of a file's rows that name none. Raises
    ConfigError for a name that is neither, StorageError for a file that cannot be read.
    """
    if name in categories():
        wanted = capacity(name) if count is None else count
        return Given(name=name, uri=None, prompts=lambda: grow(name, wanted, bucket_size=wanted))
    if "." not in name and "/" not in name:
        raise ConfigError(f"no category with a grammar and no file {name!r}: {nearest(name, categories())}")
    payload = read_uri(name)
    sha256 = hashlib.sha256(payload).hexdigest()

    def prompts() -> Iterator[Prompt]:
        stem = _stem(name)
        return read(name, sha256, category=stem, licence=licence, bucket_size=1, fetch=lambda _: payload)

    return Given(name=_stem(name), uri=name, prompts=prompts, dropped=_dropped(name))


def draw_pool(pool: Given, out: str, count: int, target: Target, *, seed: int = 0) -> Written:
    """Draw ``count`` prompts of ``pool`` to the shares of ``target`` and write them as the pool ``out``.

    Raises what ``draw`` raises, ConfigError for an ``out`` that exists or is not named .parquet, and for
    prompts without licence; StorageError.
    """
    if not out.endswith(".parquet"):
        raise ConfigError(f"{out}: a pool is written as Parquet: end its name in .parquet")
    require_free(out)
    drawn = draw(pool.prompts, count, target, seed=seed)
    table = drawn.prompts.select(POOL.names).cast(POOL)
    licences = tuple(sorted(table["licence"].unique().to_pylist()))
    if "" in licences:
        raise ConfigError(f"{pool.uri}: has prompts that name no licence: say theirs with --licence")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool"
        pq.write_table(table, path, compression="zstd", row_group_size=_ROW_GROUP)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
        put(out, path)
    return Written(uri=out, sha256=sha256, bytes=size, licences=licences, drawn=drawn)


def _dropped(uri: str) -> Mapping[str, int]:
    """Return the reasons in the file that an import writes beside the pool ``uri``, most frequent first."""
    folder, _, name = uri.rpartition("/")
    store = open_store(folder or ("/" if uri.startswith("/") else "."))
    beside = f"{name.removesuffix('.parquet')}.dropped.parquet"
    if store.size(beside) is None:
        return {}
    with store.open(beside) as file:
        reasons = pq.read_table(file, columns=["reason"])["reason"].to_pylist()
    return dict(Counter(reasons).most_common())


def _stem(uri: str) -> str:
    return uri.rpartition("/")[2].rpartition(".")[0]
