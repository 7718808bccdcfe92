"""What a statement's plan tells of current snapshots, in the shapes that versions of Trino give it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.trino.batches import current_snapshots

TABLES = {number: TableId("lake", ("x", name)) for number, name in enumerate(("t", "empty", "unknown"))}


def scan(table: str) -> dict[str, Any]:
    return {"id": "0", "name": "TableScan", "descriptor": {"table": f"lake:x.{table}"}, "children": []}


def node(name: str, *children: dict[str, Any]) -> dict[str, Any]:
    return {"id": "11", "name": name, "descriptor": {}, "children": list(children)}


class Planning:
    """A client whose server answers every EXPLAIN with one plan: each real server has one shape only."""

    catalog = "lake"

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan

    def query(self, sql: str, **_given: Any) -> Planning:
        assert sql.startswith("EXPLAIN ")
        return self

    def first(self) -> tuple[str]:
        return (json.dumps(self._plan),)


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(node("Output", node("Exchange", scan("t$data@85"), scan("empty$data"))), id="one tree (476)"),
        pytest.param(
            {"0": node("Output", node("RemoteSource")), "1": scan("t$data@85"), "2": node("Union", scan("empty$data"))},
            id="fragments (483)",
        ),
    ],
)
def test_current_snapshots_are_found_in_either_shape(plan: dict[str, Any]) -> None:
    found = current_snapshots(Planning(plan), TABLES, {})  # type: ignore[arg-type]
    assert found == {0: 85, 1: None}
