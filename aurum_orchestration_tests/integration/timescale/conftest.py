"""Databases with TimescaleDB, one for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from aurum_orchestration_tests.integration.timescale.support import HYPERTABLE, Timescale


@pytest.fixture
def ts(timescale: str, tmp_path: Path) -> Iterator[Timescale]:
    """A database with the hypertable of readings."""
    server = timescale.replace("+psycopg", "")
    name = f"aurum_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            database = Timescale(psycopg.conninfo.make_conninfo(server, dbname=name), name, tmp_path / "home")
            database.script(HYPERTABLE)
            yield database
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def apache(ts: Timescale) -> Timescale:
    """The same, where the server has the Apache edition."""
    if ts.sql("SHOW timescaledb.license") != [("apache",)]:
        pytest.skip("the server has the TSL edition")
    return ts


@pytest.fixture
def tsl(ts: Timescale) -> Timescale:
    """The same, where the server has the TSL edition."""
    if ts.sql("SHOW timescaledb.license") != [("timescale",)]:
        pytest.skip("the server has the Apache edition; AURUM_TEST_TIMESCALE_DSN names another one")
    return ts
