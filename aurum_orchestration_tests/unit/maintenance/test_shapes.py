"""The shapes that are made by the ten thousand are printed without being made: it reads the same."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from aurum_orchestration.cli.output import print_json, print_rows
from aurum_orchestration.errors import CorruptTableError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import Cost, Decision, Gain, TableHealth
from aurum_orchestration.maintenance.shapes import TableStatus

TABLE = TableId("lake", ("ns", "tä.ble"))
NOW = datetime(2026, 1, 31, tzinfo=UTC)
ACTS = Decision(TABLE, "compaction", True, "recommended", "it helps", Gain(3.5, 2, 1e21), Cost(0.1, 7))
RESTS = Decision(TABLE, "vacuum", False, "not-due", "wäits")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_printing_members_is_printing_shapes(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    def printed_by(work: Callable[[], None]) -> bytes:
        stream = io.TextIOWrapper(written := io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        work()
        return written.getvalue()

    metrics = {"data_files": 3, "ratio": 1e-7, "odd": float("nan"), "endless": float("inf")}
    problem = CorruptTableError("it is broken").problem(table=str(TABLE))
    examined = [
        (TableHealth(TABLE, "lake", "1", NOW, metrics), 12.25, [ACTS, RESTS]),
        (TableHealth(TABLE, "lake", "1", NOW), 0.0, [RESTS]),
        (TableHealth(TABLE, "lake", "1", NOW, problem=problem), 0.0, [RESTS, ACTS]),
    ]
    shapes = printed_by(lambda: print_json(TableStatus, [TableStatus.of(*one) for one in examined]))
    assert printed_by(lambda: print_rows([TableStatus.fields_of(*one) for one in examined])) == shapes
    printed = json.loads(shapes)
    assert [one["decision"]["operation"] for one in printed] == ["compaction", None, None]
    assert [one["operation"] for one in printed[2]["decisions"]] == ["vacuum", "compaction"]
    assert printed[0]["metrics"]["odd"] is None
