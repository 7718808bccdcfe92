"""Bloat read from the table itself, by the real pgstattuple."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from aurum_orchestration_tests.integration.postgres.support import CHURN, ROWS, Pg


@pytest.fixture
def exactly(timescale: str, tmp_path: Path) -> Iterator[Pg]:
    """The table of trades, half of its rows dead, where pgstattuple is installed."""
    server, name = timescale.replace("+psycopg", ""), f"aurum_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            pg = Pg(psycopg.conninfo.make_conninfo(server, dbname=name), name, tmp_path / "home")
            pg.script(f"CREATE EXTENSION pgstattuple; {CHURN}")
            pg.sql("VACUUM ANALYZE trades")
            yield pg
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_an_exact_report_is_what_pgstattuple_reads(exactly: Pg) -> None:
    exactly.sql("DELETE FROM trades WHERE id % 2 = 0")
    told = exactly.run("bloat", exact=True)
    assert told.problem is None
    detail = (told.steps or [])[0].detail
    (dead, unused) = exactly.sql("SELECT dead_tuple_count, free_space + dead_tuple_len FROM pgstattuple('trades')")[0]
    assert dead == ROWS / 2
    assert detail["table"]["dead_tuples"] == dead
    assert detail["table"]["table_bloat_bytes"] == unused
    assert detail["missing"] == []
    exactly.sql("VACUUM trades")
    after = exactly.run("bloat", exact=True, report_from_ratio=0)
    indexes = {one["index"]: one["bloat_ratio"] for one in (after.steps or [])[0].detail["indexes"]}
    density = exactly.sql("SELECT avg_leaf_density FROM pgstatindex('trades_pkey')")[0][0]
    assert indexes['"public"."trades_pkey"'] == pytest.approx(1 - density / 90, abs=0.001)
