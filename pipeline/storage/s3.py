"""A store in an S3 bucket (or MinIO, Ceph, R2, SeaweedFS: set AWS_ENDPOINT_URL), through boto3.

Creating a key is a conditional put (``If-None-Match: *``), so of two writers one wins. Some stores refuse
the condition and some ignore it without a word: the first object that a process creates is put twice to
find out. There, a key is looked up and then put. Two writers that meet in between both write; that loses
nothing, since equal units give equal bytes, but let one driver at a time work on such a store: where a GPU
gives unequal bytes, the judges may have seen the medium of a part that was overwritten.

Credentials come from boto3's standard chain only. Messages hold addresses and error codes, never what a
request or an endpoint's address held.

Every upload carries a SHA-256 that the server checks, and a signature over its body; then its size and its
checksum are read back: clients and servers were seen that stored corrupt bytes without an error.

How long a request may take: botocore ("standard" mode, back-off with jitter) makes ATTEMPTS requests. What
it gives up on, what it never tries again (a body that breaks off, a conflict, damage), and what its quota
of retries no longer allows (it runs dry where a fifth of all requests fail) gets further rounds after
PAUSES, none begun later than PATIENCE seconds after the start. A store that refuses connections is given up
after about 17 s, one that throttles after about 75 s, one that never answers after 6 minutes. "Adaptive"
mode would hold all requests of a client back after one was throttled.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import quote, unquote

import boto3
from botocore import exceptions as botocore
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from pipeline.errors import ConfigError, StorageError
from pipeline.storage.base import TEMPORARY, Entry, RangeReader, checked

PART = 64 << 20
"""Bytes of one part of a multipart upload; also the largest object that is put in one request."""

BUFFER = 4 << 20
"""Bytes fetched at a time by a reader."""

ATTEMPTS = 6
"""Requests that botocore makes for one call."""

PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each further round; half of it at least, by chance."""

PATIENCE = 60.0
"""Seconds after which no further round begins."""

CONNECTIONS = 32
"""Connections kept open by one client: `vipo gc` deletes from many threads."""

TAKEN = "PreconditionFailed"
MISSING = ("404", "NoSuchKey", "NotFound")
EMPTY = ("416", "InvalidRange")
CONDITION_REFUSED = ("NotImplemented", "InvalidArgument", "InvalidRequest", "501")
MAY_PASS = (
    *("ConditionalRequestConflict", "OperationAborted", "NoSuchUpload"),  # another writer was at the key
    *("BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"),  # the body was damaged on its way
    *("RequestTimeout", "SlowDown", "TooManyRequests", "429"),
)
LINE_BROKE = (
    botocore.ConnectionError,
    botocore.HTTPClientError,
    botocore.IncompleteReadError,
    botocore.FlexibleChecksumError,
    ResponseParserError,
)

T = TypeVar("T")
log = logging.getLogger(__name__)


class _DamagedError(Exception):
    """What is stored, or was answered, is not what was sent."""


class S3Store:
    """Objects below ``s3://bucket/prefix``."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        if not self._bucket:
            raise ConfigError(f"{uri}: no bucket: give s3://bucket/prefix")
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = _connect()
        self._conditions: bool | None = None
        """Whether the store heeds ``If-None-Match``; None until that is known."""

    def put(self, key: str, data: bytes) -> bool:
        """Create ``key``; False if it exists already."""
        return self._try(key, lambda: self._create(key, data))

    def put_file(self, key: str, path: Path) -> bool:
        """Create ``key`` from a local file, in parts if it is large; False if it exists already."""
        if path.stat().st_size <= PART:
            return self.put(key, path.read_bytes())
        return self._try(key, lambda: self._create_in_parts(key, path))

    def replace(self, key: str, data: bytes) -> None:
        """Write ``key`` whether or not it exists."""
        self._try(key, lambda: self._write(key, data))

    def get(self, key: str) -> bytes:
        """Return all bytes of ``key``."""
        return self._try(key, lambda: self._fetch(key))

    def get_range(self, key: str, start: int, end: int) -> bytes:
        """Return bytes [start, end) of ``key``."""
        data = self._try(key, lambda: self._fetch(key, Range=f"bytes={start}-{end - 1}"))
        if len(data) != end - start:
            raise StorageError(
                f"{self.uri}/{key}: {len(data)} bytes came for {end - start}: was it replaced?"
            )
        return data

    def open(self, key: str) -> BinaryIO:
        """Return a seekable reader of ``key`` that fetches 4 MiB at a time; a small object comes at once."""
        begin, size = self._try(key, lambda: self._begin(key))
        if len(begin) == size:
            return io.BytesIO(begin)
        return cast("BinaryIO", io.BufferedReader(_S3Reader(self, key, begin, size), BUFFER))

    def size(self, key: str) -> int | None:
        """Return the size of ``key`` in bytes, None if it does not exist."""
        head = self._try(key, lambda: self._head(key))
        return int(head["ContentLength"]) if head else None

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects whose key begins with ``prefix``, in order, one page of 1,000 in memory."""
        if prefix == TEMPORARY:
            yield from self._uploads()
            return
        for page in self._pages(self._client.list_objects_v2, prefix, ("ContinuationToken",)):
            for item in page.get("Contents", ()):
                yield Entry(
                    key=item["Key"].removeprefix(self._prefix),
                    size=item["Size"],
                    modified=item["LastModified"].timestamp(),
                )

    def delete(self, key: str) -> None:
        """Remove ``key``, or abort the unfinished upload that it stands for."""
        if not key.startswith(TEMPORARY):
            self._try(key, lambda: self._client.delete_object(**self._at(key)))
            return
        upload, _, target = key.removeprefix(TEMPORARY).partition("/")
        given = {**self._at(target), "UploadId": unquote(upload)}
        with suppress(self._client.exceptions.NoSuchUpload):
            self._try(key, lambda: self._client.abort_multipart_upload(**given))

    def _uploads(self) -> Iterator[Entry]:
        """Yield unfinished multipart uploads as ``.tmp/<upload>/<key>``; their parts are billed."""
        for page in self._pages(self._client.list_multipart_uploads, "", ("KeyMarker", "UploadIdMarker")):
            for item in page.get("Uploads", ()):
                upload, key = quote(item["UploadId"], safe=""), item["Key"].removeprefix(self._prefix)
                yield Entry(
                    key=f"{TEMPORARY}{upload}/{key}",
                    size=self._uploaded(key, item["UploadId"]),
                    modified=item["Initiated"].timestamp(),
                )

    def _uploaded(self, key: str, upload: str) -> int:
        """Return the bytes of an unfinished upload."""
        pages = self._client.get_paginator("list_parts").paginate(**self._at(key), UploadId=upload)
        sizes = self._try(key, lambda: [part["Size"] for page in pages for part in page.get("Parts", ())])
        return sum(sizes)

    def _pages(
        self, call: Callable[..., dict[str, Any]], prefix: str, marks: tuple[str, ...]
    ) -> Iterator[dict[str, Any]]:
        """Yield the pages of a listing; ``marks`` are the parameters that continue it."""
        given = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        while True:
            page = self._try(prefix, partial(call, **given))
            yield page
            if not page.get("IsTruncated"):
                return
            given |= {mark: page[f"Next{mark}"] for mark in marks}

    def _create(self, key: str, data: bytes) -> bool:
        """Create an object in one request; False if it exists."""
        checksum = _checksum(data)
        send = partial(self._client.put_object, **self._at(key), Body=data, ChecksumSHA256=checksum)
        made = self._conditionally(key, send)
        if made is None:
            return False
        if self._conditions is None:
            self._try(key, lambda: self._find_out(send))
        return self._read_back(key, made, len(data), checksum)

    def _create_in_parts(self, key: str, path: Path) -> bool:
        """Create an object by a multipart upload; False if it exists. An upload that fails is aborted."""
        begin = partial(self._client.create_multipart_upload, **self._at(key), ChecksumAlgorithm="SHA256")
        target = {**self._at(key), "UploadId": self._try(key, begin)["UploadId"]}
        complete, made = partial(self._client.complete_multipart_upload, **target), None
        try:
            parts = list(self._upload_parts(key, path, target))
            made = self._conditionally(key, partial(complete, MultipartUpload={"Parts": parts}))
        finally:
            if made is None:
                # It must not hide why the upload failed. What it leaves, `vipo gc` finds.
                with suppress(ClientError, BotoCoreError):
                    self._client.abort_multipart_upload(**target)
        if made is None:
            return False
        digests = b"".join(base64.b64decode(part["ChecksumSHA256"]) for part in parts)
        return self._read_back(key, made, path.stat().st_size, _checksum(digests))

    def _upload_parts(self, key: str, path: Path, target: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with path.open("rb") as file:
            for number, data in enumerate(iter(lambda: file.read(PART), b""), start=1):
                about = {"PartNumber": number, "ChecksumSHA256": _checksum(data)}
                part = self._try(key, partial(self._client.upload_part, **target, **about, Body=data))
                yield {**about, "ETag": part["ETag"]}

    def _conditionally(self, key: str, send: Callable[..., dict[str, Any]]) -> dict[str, Any] | None:
        """Let ``send`` create ``key`` unless it exists; return the store's answer, None if it does.

        A try whose answer was lost finds its own object: that too is None, and nothing is missing.
        """
        if not self._conditions and self._head(key):
            return None
        if self._conditions is False:
            return send()
        try:
            return send(IfNoneMatch="*")
        except ClientError as error:
            code = _code(error)
            if code == TAKEN:
                self._conditions = True
                return None
            if code == "NoSuchUpload" and self._head(key):
                return None
            if self._conditions or code not in CONDITION_REFUSED:
                raise
        made = send()  # whatever else the store refused, it refuses again
        self._do_without_conditions()
        return made

    def _find_out(self, send: Callable[..., object]) -> None:
        """Create what was just created again: the store has to refuse that."""
        try:
            send(IfNoneMatch="*")
        except ClientError as error:
            if _code(error) != TAKEN:
                raise
            self._conditions = True
        else:
            self._do_without_conditions()

    def _do_without_conditions(self) -> None:
        self._conditions = False
        log.warning("%s: the store does not heed If-None-Match: let one driver at a time use it", self.uri)

    def _write(self, key: str, data: bytes) -> None:
        checksum = _checksum(data)
        written = self._client.put_object(**self._at(key), Body=data, ChecksumSHA256=checksum)
        self._compare(key, written, len(data), checksum, alone=False)

    def _read_back(self, key: str, made: dict[str, Any], size: int, checksum: str) -> bool:
        """Remove what was just created if it is not what was sent: a key that exists counts as done."""
        try:
            return self._compare(key, made, size, checksum, alone=self._conditions is True)
        except _DamagedError:
            self._try(key, lambda: self._client.delete_object(**self._at(key)))
            raise

    def _compare(self, key: str, made: dict[str, Any], size: int, checksum: str, *, alone: bool) -> bool:
        """Compare size and checksum; False if we are not ``alone`` and another has written since.

        If the store keeps no checksum, an object that is not large is read and hashed.
        """
        head = self._try(key, lambda: self._head(key)) or {"ContentLength": 0}
        if not alone and head.get("ETag") != made.get("ETag"):
            return False
        if head["ContentLength"] != size:
            raise _DamagedError(f"{head['ContentLength']} of {size} bytes were stored")
        kept = head.get("ChecksumSHA256") or (_checksum(self.get(key)) if size <= PART else checksum)
        if kept.partition("-")[0] != checksum:
            raise _DamagedError("other bytes than were sent were stored")
        return True

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            return cast("dict[str, Any]", self._client.head_object(**self._at(key), ChecksumMode="ENABLED"))
        except ClientError as error:
            if _code(error) in MISSING:
                return None
            raise

    def _begin(self, key: str) -> tuple[bytes, int]:
        """Return the first bytes of an object and its size, in one request."""
        try:
            response = self._client.get_object(**self._at(key), Range=f"bytes=0-{BUFFER - 1}")
        except ClientError as error:
            if _code(error) not in EMPTY:
                raise
            return b"", 0
        data = _body(response)
        return data, int(response.get("ContentRange", f"/{len(data)}").rpartition("/")[2])

    def _fetch(self, key: str, **span: str) -> bytes:
        return _body(self._client.get_object(**self._at(key), **span))

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + checked(key, self.uri)}

    def _try(self, key: str, action: Callable[[], T]) -> T:
        """Run ``action``, and again after a pause if its failure may pass. Raises StorageError."""
        pauses, until = iter(PAUSES), time.monotonic() + PATIENCE
        while True:
            try:
                return action()
            except (ClientError, BotoCoreError, ResponseParserError, _DamagedError) as error:
                pause = next(pauses, None)
                if pause is None or time.monotonic() > until or not _may_pass(error):
                    raise StorageError(f"{self.uri}/{key}: {_explain(error)}") from None
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 workers must not come back in step


class _S3Reader(RangeReader):
    def __init__(self, store: S3Store, key: str, begin: bytes, size: int) -> None:
        super().__init__(size)
        self._store, self._key, self._begin = store, key, begin

    def read_range(self, start: int, end: int) -> bytes:
        if end <= len(self._begin):
            return self._begin[start:end]
        return self._store.get_range(self._key, start, end)


def _connect() -> Any:
    config = Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=CONNECTIONS,
        # Checksums of our own choice only: older stores refuse the trailers that boto3 would add.
        request_checksum_calculation="when_required",
        s3={"payload_signing_enabled": True},
    )
    try:
        return boto3.client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"S3 cannot be set up ({type(error).__name__}): check AWS_ENDPOINT_URL, AWS_PROFILE and ~/.aws"
        ) from None


def _body(response: dict[str, Any]) -> bytes:
    data = cast("bytes", response["Body"].read())
    if len(data) != response["ContentLength"]:
        raise _DamagedError(f"{len(data)} of {response['ContentLength']} bytes came")
    return data


def _may_pass(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500 or _code(error) in MAY_PASS
    return isinstance(error, (*LINE_BROKE, _DamagedError))


def _explain(error: Exception) -> str:
    """Say what went wrong without the error's own text: it may hold the endpoint's address."""
    if isinstance(error, ClientError) and _code(error) in MISSING:
        return "does not exist"
    if isinstance(error, ClientError):
        return f"the store answered {_code(error)}: check address and rights"
    if isinstance(error, _DamagedError):
        return f"{error}, and again when tried again: check the store and the network"
    return f"{type(error).__name__}: check network and credentials"


def _code(error: ClientError) -> str:
    return " ".join(str(error.response["Error"]["Code"]).split())[:80]


def _checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
