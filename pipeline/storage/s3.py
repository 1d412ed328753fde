"""A store in an S3 bucket (or MinIO, Ceph, R2: set AWS_ENDPOINT_URL), through boto3.

Creating a key is a conditional put (``If-None-Match: *``), so of two writers one wins. Credentials come
from boto3's standard chain only. Every upload carries a SHA-256 that the server checks, and its size is
read back: clients were seen that stored corrupt bytes without an error.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pipeline.errors import StorageError
from pipeline.storage.base import Entry, RangeReader

PART = 64 << 20
"""Bytes of one part of a multipart upload; also the largest object that is put in one request."""

BUFFER = 4 << 20
"""Bytes fetched at a time by a reader."""

TAKEN = "PreconditionFailed"


class S3Store:
    """Objects below ``s3://bucket/prefix``."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        config = Config(retries={"mode": "standard", "max_attempts": 6}, connect_timeout=10, read_timeout=60)
        self._client = boto3.client("s3", config=config)

    def put(self, key: str, data: bytes) -> bool:
        """Create ``key``; False if it exists already."""
        return self._put(key, data, IfNoneMatch="*")

    def put_file(self, key: str, path: Path) -> bool:
        """Create ``key`` from a local file, in parts if it is large; False if it exists already."""
        if path.stat().st_size <= PART:
            return self.put(key, path.read_bytes())
        with self._errors(key):
            target = {"Bucket": self._bucket, "Key": self._prefix + key}
            upload = self._client.create_multipart_upload(**target, ChecksumAlgorithm="SHA256")
            target["UploadId"] = upload["UploadId"]
            try:
                parts = list(self._upload_parts(path, target))
                self._client.complete_multipart_upload(
                    **target, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
                )
            except BaseException as error:
                self._client.abort_multipart_upload(**target)
                if isinstance(error, ClientError) and _code(error) == TAKEN:
                    return False
                raise
        self._check_size(key, path.stat().st_size)
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Write ``key`` whether or not it exists."""
        self._put(key, data)

    def get(self, key: str) -> bytes:
        """Return all bytes of ``key``."""
        with self._errors(key):
            response = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            return cast("bytes", response["Body"].read())

    def open(self, key: str) -> BinaryIO:
        """Return a seekable reader of ``key`` that fetches 4 MiB at a time."""
        size = self.size(key)
        if size is None:
            raise StorageError(f"{self.uri}/{key}: does not exist")
        return cast("BinaryIO", io.BufferedReader(_S3Reader(self, key, size), BUFFER))

    def size(self, key: str) -> int | None:
        """Return the size of ``key`` in bytes, None if it does not exist."""
        with self._errors(key):
            try:
                head = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
            except ClientError as error:
                if _code(error) in ("404", "NoSuchKey", "NotFound"):
                    return None
                raise
            return int(head["ContentLength"])

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects whose key begins with ``prefix``, in order, one page in memory."""
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", ()):
                    yield Entry(key=item["Key"].removeprefix(self._prefix), size=item["Size"])

    def get_range(self, key: str, start: int, end: int) -> bytes:
        """Return bytes [start, end) of ``key``."""
        with self._errors(key):
            span = f"bytes={start}-{end - 1}"
            response = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, Range=span)
            return cast("bytes", response["Body"].read())

    def _put(self, key: str, data: bytes, **condition: str) -> bool:
        target = {"Bucket": self._bucket, "Key": self._prefix + key, "ChecksumSHA256": _checksum(data)}
        with self._errors(key):
            try:
                self._client.put_object(**target, **condition, Body=data)
            except ClientError as error:
                if _code(error) == TAKEN:
                    return False
                raise
        self._check_size(key, len(data))
        return True

    def _upload_parts(self, path: Path, target: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with path.open("rb") as file:
            for number, data in enumerate(iter(lambda: file.read(PART), b""), start=1):
                checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
                part = self._client.upload_part(
                    **target, PartNumber=number, Body=data, ChecksumSHA256=checksum
                )
                yield {"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": checksum}

    def _check_size(self, key: str, size: int) -> None:
        stored = self.size(key)
        if stored != size:
            raise StorageError(f"{self.uri}/{key}: stored {stored} of {size} bytes: delete it and run again")

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn boto3's errors into one line; their texts hold no credentials, their requests might."""
        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            raise StorageError(
                f"{self.uri}/{key}: the store answered {code}: check address and rights"
            ) from None
        except BotoCoreError as error:
            raise StorageError(
                f"{self.uri}/{key}: {type(error).__name__}: check network and credentials"
            ) from None


class _S3Reader(RangeReader):
    def __init__(self, store: S3Store, key: str, size: int) -> None:
        super().__init__(size)
        self._store, self._key = store, key

    def read_range(self, start: int, end: int) -> bytes:
        return self._store.get_range(self._key, start, end)


def _code(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])


def _checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
