"""Every error that vipo raises on purpose.

VipoError                    one line: what happened, where, and the remedy
├── ConfigError              a setting is refused before any work starts
├── StorageError             a store cannot be read or written
├── CorruptError             stored bytes are not what their name or index says
├── MediaError               bytes that do not decode to the media they claim to be
├── ItemError                one item cannot be made; it becomes a row with a reason
├── WorkerError              this worker cannot go on; the unit is retried elsewhere
└── BuildError               a build ended with units that could not be done
"""

from __future__ import annotations


class VipoError(Exception):
    """Base of all deliberate errors; the message is one line and names the remedy."""


class ConfigError(VipoError):
    """A setting is wrong; the message names the file, the key and the nearest valid value."""


class StorageError(VipoError):
    """A store cannot be reached, read or written."""


class CorruptError(VipoError):
    """Stored bytes differ from what their name, index or manifest says."""


class MediaError(VipoError):
    """Bytes that do not decode to the image or video they claim to be."""


class ItemError(VipoError):
    """One item cannot be made; the stage writes a row with this reason and goes on."""


class WorkerError(VipoError):
    """The worker itself is unfit (lost device, dead server); its unit is retried elsewhere."""


class BuildError(VipoError):
    """A build ended, but some units failed every attempt; everything else is committed."""
