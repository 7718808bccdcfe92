"""An S3-compatible server for tests: one that is there (AURUM_TEST_S3_ENDPOINT), or MinIO on loopback."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pyarrow.fs as pafs
import requests
from botocore.config import Config

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.local.engines.background import free_port
from aurum_orchestration_tests.engines import missing
from aurum_orchestration_tests.servers import absence
from aurum_orchestration_tests.servers.minio import ENGINE
from aurum_orchestration_tests.servers.process import running

CONNECTIONS = 64


@dataclass(frozen=True)
class ObjectStore:
    """Where an object store answers, and who may use it."""

    endpoint: str
    access_key: str
    secret_key: str

    def at(self, endpoint: str) -> ObjectStore:
        """The same store through another address, such as a proxy's."""
        return ObjectStore(endpoint, self.access_key, self.secret_key)

    @property
    def properties(self) -> dict[str, str]:
        """PyIceberg's properties for it."""
        return {
            "s3.endpoint": self.endpoint,
            "s3.access-key-id": self.access_key,
            "s3.secret-access-key": self.secret_key,
            "s3.region": "us-east-1",
        }

    def system(self) -> pafs.S3FileSystem:
        """Arrow's file system on it."""
        parts = urlsplit(self.endpoint)
        return pafs.S3FileSystem(
            access_key=self.access_key,
            secret_key=self.secret_key,
            endpoint_override=parts.netloc,
            scheme=parts.scheme,
            region="us-east-1",
            allow_bucket_creation=True,
            allow_bucket_deletion=True,
        )

    def client(self) -> Any:
        """A boto3 client for CONNECTIONS threads."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(max_pool_connections=CONNECTIONS, s3={"addressing_style": "path"}),
        )

    @contextmanager
    def bucket(self) -> Iterator[str]:
        """The name of a new, empty bucket, removed with all it holds at the end."""
        name, system = f"aurum-{uuid.uuid4().hex[:12]}", self.system()
        system.create_dir(name)
        try:
            yield name
        finally:
            system.delete_dir(name)

    def objects(self, bucket: str) -> dict[str, tuple[int, int]]:
        """Every object of a bucket: size in bytes, time of last writing in ns."""
        found = self.system().get_file_info(pafs.FileSelector(bucket, recursive=True))
        return {one.path: (one.size, one.mtime_ns) for one in found if one.type == pafs.FileType.File}


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """The store that AURUM_TEST_S3_ENDPOINT names (with _ACCESS_KEY, _SECRET_KEY), else a MinIO of one's own."""
    given = os.environ.get("AURUM_TEST_S3_ENDPOINT")
    if given:
        yield ObjectStore(given, os.environ["AURUM_TEST_S3_ACCESS_KEY"], os.environ["AURUM_TEST_S3_SECRET_KEY"])
        return
    provisioned = ENGINE.find()
    if provisioned is None:
        missing("s3", absence(ENGINE))
    folder = Path(tempfile.mkdtemp(prefix="aurum-s3-"))
    store = ObjectStore(f"http://127.0.0.1:{free_port()}", "aurum-tests", uuid.uuid4().hex)
    env = {
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
        "MINIO_ROOT_USER": store.access_key,
        "MINIO_ROOT_PASSWORD": store.secret_key,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        # a folder on the system's disk is good enough
        "MINIO_CI_CD": "1",
    }
    command: list[str | Path] = [
        provisioned / "minio",
        "server",
        folder / "data",
        "--quiet",
        "--address",
        urlsplit(store.endpoint).netloc,
    ]
    try:
        with running(command, lambda: _is_ready(store.endpoint), folder=folder, env=env):
            yield store
    except ProvisioningError as error:
        missing("s3", str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_ready(endpoint: str) -> bool:
    try:
        return requests.get(f"{endpoint}/minio/health/ready", timeout=5).ok
    except requests.RequestException:
        return False
