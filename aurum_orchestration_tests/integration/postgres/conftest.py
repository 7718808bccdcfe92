"""Databases of a real server, one for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from aurum_orchestration_tests.integration.postgres.support import CHURN, Pg


@pytest.fixture
def empty(request: pytest.FixtureRequest, postgres_url: str, tmp_path: Path) -> Iterator[Pg]:
    """An empty database; an indirect parameter is its encoding."""
    server = postgres_url.replace("+psycopg", "")
    name = f"aurum_{uuid.uuid4().hex[:12]}"
    made = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if encoding := getattr(request, "param", None):
        made += sql.SQL(" TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING {}").format(sql.Literal(encoding))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(made)
        try:
            yield Pg(psycopg.conninfo.make_conninfo(server, dbname=name), name, tmp_path / "home")
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def pg(empty: Pg) -> Pg:
    """A database with the table of trades, vacuumed and without a dead row."""
    empty.script(CHURN)
    empty.sql("VACUUM (ANALYZE) trades")  # in a session of its own: a session tells its own counts when it ends
    return empty
