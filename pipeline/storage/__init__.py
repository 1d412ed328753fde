"""Where bytes live: one small protocol, one file per kind of store."""

from pipeline.storage.base import Entry, Store, open_store, read_uri

__all__ = ["Entry", "Store", "open_store", "read_uri"]
