"""S3 servers, and a project of a few pairs, for the tests that need them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.storage import s3
from tests.e2e.s3_servers import BUCKET, juicefs, logged_in, make_bucket, moto
from tests.e2e.world import IMAGES, Command, Project, built, tree


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Return the address of an S3 server with a bucket; this process talks to it directly."""
    with moto() as uri, logged_in(uri):
        make_bucket(uri, BUCKET)
        yield uri


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of MinIO's code over a folder, with a bucket."""
    with juicefs(tmp_path_factory.mktemp("juicefs") / "store") as uri:
        make_bucket(uri, BUCKET)
        yield uri


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again sooner, and more of it in our own rounds than in botocore's."""
    monkeypatch.setattr(s3, "PAUSES", tuple(0.01 for _ in s3.PAUSES))
    monkeypatch.setattr(s3, "ATTEMPTS", 3)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project.write(tmp_path_factory.mktemp("few"), IMAGES.replace("quota = 12", "quota = 2"))


@pytest.fixture(scope="module")
def few_tree(few: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the SHA-256 of everything that an undisturbed local build makes."""
    undisturbed = tmp_path_factory.mktemp("few-run") / "run"
    built(Command(*few.build(undisturbed)))
    return tree(undisturbed)
