"""What older versions of Trino lack, tried on the one at hand: the lack itself is played, the rest is real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aurum_orchestration.maintenance.backends.iceberg.trino.client import Answer
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration_tests.integration.trino.upkeep import Shared, shared
from aurum_orchestration_tests.servers.trino import TrinoServer


@pytest.fixture
def lake(trino: TrinoServer, tmp_path: Path) -> Iterator[Shared]:
    with shared(trino, tmp_path) as made:
        yield made


async def test_rows_are_compared_without_the_table_of_entries(lake: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trino 468 has no $entries, which names the files of a commit: then the statement's whole scope is read."""
    lake.sql("CREATE TABLE {t}.t (id bigint)")
    for number in range(3):
        lake.sql(f"INSERT INTO {{t}}.t VALUES {number}")
    asked: list[str] = []

    def relation(self: TrinoTable, suffix: str = "") -> str:
        if "entries" not in suffix:
            return known(self, suffix)
        asked.append(suffix)
        return known(self, "$nothing")

    known = TrinoTable.relation
    monkeypatch.setattr(TrinoTable, "relation", relation)
    done = await lake.run("compaction", min_input_files=2, options={"embedded": False})
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert asked
    assert done.verification is not None
    assert (done.verification.rows_before, done.verification.ok) == (3, True)
    assert lake.ids() == [0, 1, 2]


async def test_main_goes_back_by_the_catalogs_own_procedure(lake: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trino 468 has no such procedure of a table."""
    lake.sql("CREATE TABLE {t}.t (id bigint)")
    for number in range(3):
        lake.sql(f"INSERT INTO {{t}}.t VALUES {number}")
    stood = lake.table().metadata.current_snapshot_id
    done = await lake.run("compaction", min_input_files=2, options={"embedded": False})
    assert lake.table().metadata.current_snapshot_id != stood
    sent: list[str] = []

    def change(self: TrinoTable, sql: str, *given: Any, **more: Any) -> Answer:
        sent.append(sql)
        return known(self, sql.replace("EXECUTE rollback_to_snapshot", "EXECUTE nothing"), *given, **more)

    known = TrinoTable.change
    monkeypatch.setattr(TrinoTable, "change", change)
    async with lake.service(embedded=False) as service:
        undone = await service.undo(done.operation_id)
    assert undone.status == MaintenanceStatus.COMPLETED, undone.problem
    assert [sql.split()[0] for sql in sent] == ["ALTER", "CALL"]
    assert lake.table().metadata.current_snapshot_id == stood
    assert lake.ids() == [0, 1, 2]
