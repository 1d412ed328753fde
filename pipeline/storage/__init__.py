"""Where bytes live: one small protocol, one file per kind of store, opened by its address."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.storage.base import Entry, Store

__all__ = ["Entry", "Store", "open_store", "read_uri"]


def open_store(uri: str) -> Store:
    """Open the store at a local path, file:// or s3:// address. Raises ConfigError for any other."""
    scheme, separator, rest = uri.partition("://")
    refuse_secrets(uri)
    if not separator or scheme == "file":
        from pipeline.storage.local import LocalStore

        return LocalStore(Path(rest if separator else uri))
    if scheme == "s3":
        from pipeline.storage.s3 import S3Store

        return S3Store(uri)
    raise ConfigError(
        f"{uri}: {scheme}:// is not a known kind of store: use a local path or s3://bucket/prefix"
    )


def read_uri(uri: str) -> bytes:
    """Return the bytes of one file by its path or address, outside of any run."""
    refuse_secrets(uri)
    folder, _, name = uri.rpartition("/")
    return open_store(folder if folder else ("/" if uri.startswith("/") else ".")).get(name)


def refuse_secrets(uri: str) -> None:
    """Refuse an address that carries a login or a signature. Raises ConfigError, which does not repeat it.

    Addresses are stored in settings and shown in errors and reports.
    """
    scheme, separator, rest = uri.partition("://")
    if separator and ("@" in rest.partition("/")[0] or "?" in rest):
        raise ConfigError(
            f"{scheme}:// address with a login ('@') or a query ('?'): give the plain address, and the "
            "credentials through the environment or the files that boto3 reads"
        )
