"""Fixtures that several suites share, and which tests run where."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from aurum_orchestration_tests.engines import embedded_postgres

# a slow machine is no failure
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")

NOT_THOROUGH = "takes long: AURUM_THOROUGH=1 runs it"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the long tests to AURUM_THOROUGH=1, which CI sets; the summary counts them as skipped."""
    if os.environ.get("AURUM_THOROUGH") == "1":
        return
    for item in items:
        if item.get_closest_marker("thorough"):
            item.add_marker(pytest.mark.skip(reason=NOT_THOROUGH))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a real PostgreSQL server (superuser): AURUM_TEST_POSTGRES_DSN, else an embedded one of this session."""
    given = os.environ.get("AURUM_TEST_POSTGRES_DSN")
    if given:
        yield given
        return
    with embedded_postgres() as url:
        yield url
