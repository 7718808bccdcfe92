"""Fixtures that several suites share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from aurum_orchestration_tests.engines import embedded_postgres

# a slow machine is no failure
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a real PostgreSQL server (superuser): AURUM_TEST_POSTGRES_DSN, else an embedded one of this session."""
    given = os.environ.get("AURUM_TEST_POSTGRES_DSN")
    if given:
        yield given
        return
    with embedded_postgres() as url:
        yield url
