"""One suite over both stores: each test runs on a new SQLite file and in a new schema of a real PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from aurum_orchestration.history import History


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """URL of a store that was never written to."""
    return str(request.getfixturevalue(f"{request.param}_store"))


@pytest.fixture
def sqlite_store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/home/history.db"


@pytest.fixture
def postgres_store(postgres_url: str) -> Iterator[str]:
    name = f"history_{uuid.uuid4().hex[:12]}"
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    yield f"{postgres_url}?options=-csearch_path%3D{name}"
    with engine.connect() as connection:
        connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
    engine.dispose()


@pytest.fixture
def history(url: str) -> Iterator[History]:
    with History(url) as opened:
        yield opened
