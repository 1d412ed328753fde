"""Tars that are the same to the byte whenever their members are."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from pipeline.records import Member

BLOCK = 512


class _Hashing(io.RawIOBase):
    """A file that hashes what is written to it: a shard of a gigabyte is read once less."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.sha256 = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.sha256.update(data)
        self.size += len(data)
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> tuple[list[Member], str, int]:
    """Write ``files`` (name, content) in the order given; return where each lies, SHA-256 and bytes.

    USTAR, mode 0644, owner 0, time 0: nothing of the machine or the moment gets in. A name may have up
    to 100 characters (ValueError beyond).
    """
    members: list[Member] = []
    with _Hashing(path) as out, tarfile.open(fileobj=out, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            padded = -(-len(content) // BLOCK) * BLOCK
            digest = hashlib.sha256(content).hexdigest()
            members.append(Member(name=name, offset=tar.offset - padded, size=len(content), sha256=digest))
    return members, out.sha256.hexdigest(), out.size
