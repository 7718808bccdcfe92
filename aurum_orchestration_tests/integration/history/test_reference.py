"""docs/reference/history.md says what is so: its tables of columns, its SQL and its Python are checked here."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import BigInteger, Boolean, Float, Integer, Table, Text, text

from aurum_orchestration.history import History
from aurum_orchestration.history.schema import UtcTime, metadata
from aurum_orchestration_tests.integration.history.samples import FLIGHTS, ended, point

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "history.md"
WORDS = {Text: "text", UtcTime: "time", BigInteger: "integer", Integer: "integer", Float: "number", Boolean: "boolean"}


def rendered(table: Table) -> str:
    """The page's section of a table, made from the schema."""
    lines = [f"### {table.name}", "", table.info["meaning"], "", "| Column | Type | Meaning |", "|---|---|---|"]
    for column in table.columns:
        key = ", key" if column.primary_key else ""
        null = " or null" if column.nullable else ""
        lines.append(f"| `{column.name}` | {WORDS[type(column.type)]}{null}{key} | {column.doc} |")
    return "\n".join(lines)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def fill(history: History) -> None:
    verification = {"method": "row-count", "rows_before": 3, "rows_after": 3, "checksum_equal": True}
    metrics = {"files_rewritten": 9.0, "files_added": 1.0, "bytes_rewritten": 5e9}
    history.record(ended(metrics=metrics, verification=verification), who="maria")
    history.record(ended("failed", minute=1, problem="commit-conflict"), who="maria")
    history.record_health([point(data_files=9.0)])
    history.acquire(FLIGHTS, holder="maria", operation_id="op", ttl=timedelta(minutes=10))


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_the_page_has_each_table_as_it_is(table: Table) -> None:
    assert rendered(table) in PAGE.read_text(), f"write into {PAGE.name}:\n{rendered(table)}"


def test_the_page_has_no_other_table() -> None:
    assert set(re.findall(r"^### (aurum_\w+)$", PAGE.read_text(), re.MULTILINE)) == set(metadata.tables)


@pytest.mark.parametrize("number", range(3))
def test_the_sql_for_both_answers(history: History, number: int) -> None:
    fill(history)
    with history._store.reading() as connection:
        assert connection is not None
        assert connection.execute(text(blocks("sql")[number])).all()


@pytest.mark.parametrize(("store", "number"), [("sqlite_store", 3), ("postgres_store", 4)])
def test_the_sql_of_one_database_answers(store: str, number: int, request: pytest.FixtureRequest) -> None:
    with History(request.getfixturevalue(store)) as history:
        fill(history)
        with history._store.reading() as connection:
            assert connection is not None
            assert connection.exec_driver_sql(blocks("sql")[number]).scalar() == 9
    assert len(blocks("sql")) == 5


def test_the_python_runs(sqlite_store: str, tmp_path: Path) -> None:
    with History(sqlite_store) as history:
        fill(history)
    (script,) = blocks("python")
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={"AURUM_HISTORY_URL": sqlite_store, "AURUM_HOME": str(tmp_path), "PYTHONPATH": str(PAGE.parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == ""
    *lines, pruned = ran.stdout.splitlines()
    assert lines == ["failed lake.flights.flights", "lake.flights.flights 12.5 9.0"]
    assert pruned.startswith("Pruned(operations=")
