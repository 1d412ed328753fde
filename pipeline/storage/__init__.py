"""Where bytes live: one small protocol, one file per kind of store."""
