"""Weights on the hub, through huggingface_hub; whatever it raises becomes one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError, StorageError, VipoError
from pipeline.weights.files import IGNORED, LOADABLE, loadable

PATIENCE = 10.0  # seconds for one answer, where nothing is downloaded


def folder(repo: str, revision: str, *, download: bool = True) -> Path:
    """Return the hub cache's folder of a commit, downloaded if need be (HF_HUB_OFFLINE is honoured)."""
    with _one_line(repo, revision):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            found = snapshot_download(
                repo,
                revision=_commit(repo, revision),
                allow_patterns=list(LOADABLE),
                ignore_patterns=list(IGNORED),
                local_files_only=not download,
            )
        except LocalEntryNotFoundError as error:
            if not download:
                raise StorageError(
                    f"{repo}: not in the hub's cache on this machine: a worker downloads it, or "
                    f"`hf download {repo} --revision {revision}`"
                ) from None
            raise error.__cause__ or error from None
    return Path(found)


def require_access(repo: str, revision: str, *, gated: bool) -> None:
    """Refuse a commit that is not on the hub, has no safetensors, or may not be read with this token."""
    with _one_line(repo, revision):
        from huggingface_hub import HfApi, get_hf_file_metadata, get_token, hf_hub_url

        if gated and get_token() is None:
            raise ConfigError(_gated(repo))
        info = HfApi().model_info(repo, revision=_commit(repo, revision), timeout=PATIENCE)
        names = [file.rfilename for file in info.siblings or () if loadable(file.rfilename)]
        if not any(name.endswith(".safetensors") for name in names):
            raise ConfigError(f"{repo}: no safetensors at {revision}: pin another revision")
        # Everyone may list the files of a gated repository: ask for one of them.
        get_hf_file_metadata(hf_hub_url(repo, names[0], revision=revision), timeout=PATIENCE)


def newest(repo: str) -> str:
    """Return the commit at the head of a repository."""
    with _one_line(repo, "main"):
        from huggingface_hub import HfApi

        return str(HfApi().model_info(repo, timeout=PATIENCE).sha)


def _commit(repo: str, revision: str) -> str:
    if revision.startswith("sha256:"):
        raise ConfigError(
            f"{repo}: the pin is the digest of a folder, and the profile names none: set its key weights, or "
            "pin a commit of the hub (`vipo weights pin`)"
        )
    return revision


def _gated(repo: str) -> str:
    return (
        f"{repo}: gated: accept its licence on the hub and set HF_TOKEN to a token of that account, or put "
        "the files below the profile's key weights"
    )


@contextmanager
def _one_line(repo: str, revision: str) -> Iterator[None]:
    """Raise our own errors instead of the client's, whose texts take many lines."""
    try:
        from huggingface_hub import errors
    except ImportError:
        raise ConfigError(
            f"{repo}: the hub needs the package huggingface_hub: install it, or set the profile's key weights"
        ) from None
    try:
        yield
    except VipoError:
        raise
    except errors.GatedRepoError:
        raise ConfigError(_gated(repo)) from None
    except errors.RevisionNotFoundError:
        raise ConfigError(f"{repo}: the hub has no revision {revision}: run `vipo weights pin`") from None
    except errors.RepositoryNotFoundError:
        raise ConfigError(
            f"{repo}: not on the hub, or private: check the name, or set HF_TOKEN to a token that may read it"
        ) from None
    except Exception as error:  # noqa: BLE001 of requests or of httpx, by the client's version
        status = getattr(getattr(error, "response", None), "status_code", None)
        cause = f"it answered {status}" if status else type(error).__name__
        raise StorageError(
            f"{repo}: cannot be had from the hub ({cause}) nor from its cache: check network, HF_TOKEN and "
            "HF_HUB_OFFLINE, or set the profile's key weights"
        ) from None
