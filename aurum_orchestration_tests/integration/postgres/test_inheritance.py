"""What is asked for a table is done to that table, not to those that inherit from it: each has its own turn."""

from __future__ import annotations

from typing import Any

import pytest

from aurum_orchestration_tests.integration.postgres.support import Pg

_LOOKED_AFTER = (
    "SELECT pg_stat_get_last_vacuum_time(oid), pg_stat_get_last_analyze_time(oid), relfilenode FROM pg_class"
)
_FULL: dict[str, Any] = {
    "vacuum_full": True,
    "min_bloat_mb": 0.1,
    "min_bloat_ratio": 0.3,
    "unknown_space_limit_mb": None,
}


def looked_after(pg: Pg, table: str) -> tuple[Any, ...]:
    pg.settle()
    return pg.sql(f"{_LOOKED_AFTER} WHERE oid = '{table}'::regclass")[0]


@pytest.mark.parametrize(
    ("operation", "given", "did"),
    [
        ("vacuum", {}, [True, True, False]),
        ("stats", {"analyze": "all"}, [False, True, False]),
        ("compaction", _FULL, [False, True, True]),
    ],
)
def test_a_table_is_maintained_without_its_children(
    pg: Pg, operation: str, given: dict[str, Any], did: list[bool]
) -> None:
    pg.script(
        "CREATE TABLE former () INHERITS (trades) WITH (autovacuum_enabled = false);"
        "INSERT INTO former SELECT * FROM trades;"
        "DELETE FROM trades WHERE id % 8 <> 0"
    )
    before, child = looked_after(pg, "trades"), looked_after(pg, "former")
    assert pg.run(operation, **given).status == "completed"
    after = looked_after(pg, "trades")
    assert [was != now for was, now in zip(before, after, strict=True)] == did
    assert looked_after(pg, "former") == child
    whole = "SELECT count(*) FROM pg_stats WHERE tablename = 'trades' AND inherited"
    assert pg.sql(whole) == [(5,)], "statistics of the table with its children are those of its ANALYZE"
    assert pg.run("stats", "pg.public.former", analyze="all").metrics["tables_analyzed"] == 1
    assert looked_after(pg, "former") != child


def test_the_tables_of_a_family_are_analyzed_once_each(pg: Pg) -> None:
    pg.script("CREATE TABLE former () INHERITS (trades); INSERT INTO former SELECT * FROM trades")
    counted = "SELECT sum(pg_stat_get_analyze_count(oid)) FROM pg_class WHERE relname IN ('trades', 'former')"
    pg.settle()
    before = pg.sql(counted)[0][0]
    assert pg.run("stats", f"pg.{pg.name}", analyze="all").metrics["tables_analyzed"] == 2
    pg.settle()
    assert pg.sql(counted)[0][0] == before + 2
