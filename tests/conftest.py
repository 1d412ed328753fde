"""Shared by all tests."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from hypothesis import settings
from rich.console import Console

from pipeline import api
from tests.e2e.world import IMAGES, VIDEOS, Project, tree

# No test times itself: on a busy machine one example may take long.
# The same examples every time, so that a red main names a change; others by --hypothesis-profile=explore.
settings.register_profile("vipo", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("vipo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests on one worker, for they share what is dear: servers, built runs, tiny weights."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.location[0]))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project of one image category that builds in seconds."""
    return Project.write(tmp_path_factory.mktemp("images"), IMAGES)


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project of one image and one video category."""
    return Project.write(tmp_path_factory.mktemp("both"), IMAGES, VIDEOS)


@pytest.fixture(scope="session")
def images_run(images: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the undisturbed run of ``images``: one local worker, nothing went wrong. Do not write to it."""
    return _built(images, tmp_path_factory.mktemp("undisturbed") / "images")


@pytest.fixture(scope="session")
def both_run(both: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the undisturbed run of ``both``. Do not write to it."""
    return _built(both, tmp_path_factory.mktemp("undisturbed") / "both")


@pytest.fixture(scope="session")
def images_tree(images_run: Path) -> dict[str, str]:
    """Return the SHA-256 of everything in ``images_run``."""
    return tree(images_run)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Start an S3 server on this machine; return the address of an empty bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-no-message-may-show")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_PROFILE", raising=False)
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        boto3.client("s3").create_bucket(Bucket="vipo")
        yield "s3://vipo"
    server.stop()


@pytest.fixture
def console() -> Iterator[Console]:
    """Return a console that nobody sees."""
    with io.StringIO() as file:
        yield Console(file=file)


def _built(project: Project, run: Path) -> Path:
    with io.StringIO() as file:
        made = api.build(project.settings(), str(run), console=Console(file=file))
    assert not made.failures, made.failures
    assert not made.short, made.short
    return run
