"""Fixtures that several suites share, and which tests run where."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings

import aurum_orchestration_tests.disk  # noqa: F401 - for what it does
from aurum_orchestration_tests.engines import embedded_postgres
from aurum_orchestration_tests.servers import trino as trino_servers
from aurum_orchestration_tests.servers.object_store import ObjectStore, object_store
from aurum_orchestration_tests.servers.postgres_matrix import postgres_of
from aurum_orchestration_tests.servers.rest_catalog import RestServer, rest_server
from aurum_orchestration_tests.servers.timescale import timescale_server
from aurum_orchestration_tests.servers.trino import TrinoServer

# a slow machine is no failure
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")

NOT_THOROUGH = "takes long: make test-thorough runs it"


def pytest_configure() -> None:
    """Workers share one Trino."""
    trino_servers.name_folder()


def pytest_unconfigure() -> None:
    """End the Trino of this run, once the workers have ended."""
    trino_servers.remove_folder()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the long tests to AURUM_THOROUGH=1 (`make test-thorough`); the summary counts them as skipped."""
    if os.environ.get("AURUM_THOROUGH") == "1":
        return
    for item in items:
        if item.get_closest_marker("thorough"):
            item.add_marker(pytest.mark.skip(reason=NOT_THOROUGH))


def pytest_collection_finish() -> None:
    """Modules and tests stay until the end: whoever looks for garbage need not look through them again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a real PostgreSQL server (superuser): AURUM_TEST_POSTGRES_DSN, else an embedded one of this session.

    AURUM_TEST_POSTGRES_VERSION asks for another major version of it.
    """
    given, version = os.environ.get("AURUM_TEST_POSTGRES_DSN"), os.environ.get("AURUM_TEST_POSTGRES_VERSION")
    if given:
        yield given
        return
    with postgres_of(int(version)) if version else embedded_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_matrix() -> Iterator[Callable[[int], str]]:
    """URL of a real PostgreSQL server (superuser) of a major version, started when it is asked for first."""
    started: dict[int, str] = {}
    with ExitStack() as servers:

        def of(major: int) -> str:
            if major not in started:
                started[major] = servers.enter_context(postgres_of(major))
            return started[major]

        yield of


@pytest.fixture(scope="session")
def timescale() -> Iterator[str]:
    """URL of a real PostgreSQL 17 with TimescaleDB (superuser): AURUM_TEST_TIMESCALE_DSN, else one of this session."""
    with timescale_server() as url:
        yield url


@pytest.fixture(scope="session")
def s3() -> Iterator[ObjectStore]:
    """A real S3-compatible server: AURUM_TEST_S3_ENDPOINT, else a MinIO of this session."""
    with object_store() as store:
        yield store


@pytest.fixture
def bucket(s3: ObjectStore) -> Iterator[str]:
    """The name of an empty bucket of the test's own."""
    with s3.bucket() as name:
        yield name


@pytest.fixture(scope="session")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestServer]:
    """A real REST catalog whose warehouse is a local folder."""
    folder = tmp_path_factory.mktemp("rest-warehouse")
    with rest_server(f"file://{folder}", {}) as server:
        yield server


@pytest.fixture(scope="session")
def rest_on_s3(s3: ObjectStore) -> Iterator[RestServer]:
    """A real REST catalog whose warehouse is a bucket of the store, to which it hands out the keys."""
    properties = {**s3.properties, "s3.path-style-access": "true", "include-credentials": "true"}
    with s3.bucket() as bucket, rest_server(f"s3://{bucket}/warehouse", properties) as server:
        yield server


@pytest.fixture(scope="session")
def trino() -> TrinoServer:
    """A real Trino, whose catalog PyIceberg shares: AURUM_TEST_TRINO_URL, else one for all workers of this run."""
    return trino_servers.trino_server()
