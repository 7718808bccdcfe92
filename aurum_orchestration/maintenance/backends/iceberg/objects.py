"""An S3-compatible store in bulk: a thousand deletions a request, copies without a look at every folder above.

Arrow's file system asks four times for each object that it deletes. boto3 does what is done by the thousand;
without it (the extra ``s3``), or where the credentials are of a kind that only the FileIO knows, Arrow does it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pyiceberg.io import (
    AWS_ACCESS_KEY_ID,
    AWS_REGION,
    AWS_SECRET_ACCESS_KEY,
    AWS_SESSION_TOKEN,
    S3_ACCESS_KEY_ID,
    S3_ANONYMOUS,
    S3_CONNECT_TIMEOUT,
    S3_ENDPOINT,
    S3_FORCE_VIRTUAL_ADDRESSING,
    S3_PROXY_URI,
    S3_REGION,
    S3_REQUEST_TIMEOUT,
    S3_SECRET_ACCESS_KEY,
    S3_SESSION_TOKEN,
    FileIO,
)

from aurum_orchestration.maintenance.backends.iceberg.files import in_threads

_SCHEMES = frozenset({"s3", "s3a", "s3n"})
AT_ONCE = 1000
"""Objects that one DeleteObjects request may name."""

_ATTEMPTS = 5
_LARGEST_COPY = 5 * 1024**3
_THREADS = 4
_ONLY_THE_FILEIO = ("s3.signer", "s3.signer.uri", "s3.role-arn", "client.role-arn", "s3.profile-name", S3_ANONYMOUS)


def is_object(location: str) -> bool:
    """True for a location in an S3-compatible store."""
    return urlsplit(location).scheme in _SCHEMES


def objects_of(io: FileIO) -> Objects | None:
    """The store that a FileIO reaches by its S3 properties, None when the FileIO alone has to do."""
    if importlib.util.find_spec("boto3") is None or any(io.properties.get(name) for name in _ONLY_THE_FILEIO):
        return None
    return Objects(_client(io.properties))


class Objects:
    """Objects of one store, by location: ``s3://bucket/key``. Safe to share between threads."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def delete(self, locations: Sequence[str]) -> Iterator[str]:
        """Delete, and give ``""`` for each, or why not. One that was not there is deleted, too."""
        parts = [locations[start : start + AT_ONCE] for start in range(0, len(locations), AT_ONCE)]
        for outcomes in in_threads(self._delete, parts, _THREADS):
            yield from outcomes

    def _delete(self, locations: Sequence[str]) -> list[str]:
        buckets: dict[str, list[str]] = {}
        for location in locations:
            bucket, key = _split(location)
            buckets.setdefault(bucket, []).append(key)
        failed: dict[tuple[str, str], str] = {}
        for bucket, keys in buckets.items():
            asked = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
            try:
                answer = self._client.delete_objects(Bucket=bucket, Delete=asked)
            except Exception as error:
                failed |= {(bucket, key): _first_line(error) for key in keys}
                continue
            for one in answer.get("Errors", ()):
                failed[bucket, one["Key"]] = f"{one.get('Code')}: {one.get('Message')}"
        return [failed.get(_split(location), "") for location in locations]

    def size(self, location: str) -> int | None:
        """Bytes of an object, None when there is none. Raises what the client raises."""
        bucket, key = _split(location)
        try:
            return int(self._client.head_object(Bucket=bucket, Key=key)["ContentLength"])
        except self._client.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise

    def copy(self, source: str, target: str, size: int) -> None:
        """Copy an object within the store. Raises FileNotFoundError, and what the client raises."""
        bucket, key = _split(source)
        to_bucket, to_key = _split(target)
        origin = {"Bucket": bucket, "Key": key}
        try:
            if size < _LARGEST_COPY:
                self._client.copy_object(Bucket=to_bucket, Key=to_key, CopySource=origin)
            else:
                self._client.copy(origin, to_bucket, to_key)  # in parts
        except self._client.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                raise FileNotFoundError(source) from error
            raise


def _split(location: str) -> tuple[str, str]:
    """Bucket and key. A key is what stands there: nothing in it is decoded."""
    bucket, _, key = location.partition("://")[2].partition("/")
    return bucket, key


def _client(properties: Mapping[str, Any]) -> Any:
    import boto3
    from botocore.config import Config

    def first(*names: str) -> str | None:
        return next((str(properties[name]) for name in names if properties.get(name)), None)

    endpoint, proxy = first(S3_ENDPOINT), first(S3_PROXY_URI)
    virtual = str(properties.get(S3_FORCE_VIRTUAL_ADDRESSING, "")).lower() == "true"
    timeouts = {
        option: float(value)
        for option, name in (("connect_timeout", S3_CONNECT_TIMEOUT), ("read_timeout", S3_REQUEST_TIMEOUT))
        if (value := first(name))
    }
    config = Config(
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        s3={"addressing_style": "virtual" if virtual else "path" if endpoint else "auto"},
        max_pool_connections=32,
        proxies={"http": proxy, "https": proxy} if proxy else None,
        # stores that are not Amazon's know the older checksum only
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **timeouts,
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=first(S3_ACCESS_KEY_ID, AWS_ACCESS_KEY_ID),
        aws_secret_access_key=first(S3_SECRET_ACCESS_KEY, AWS_SECRET_ACCESS_KEY),
        aws_session_token=first(S3_SESSION_TOKEN, AWS_SESSION_TOKEN),
        region_name=first(S3_REGION, AWS_REGION),
        config=config,
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
