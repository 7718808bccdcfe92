"""Tables of format version 3, where the Trino at hand writes them: each row keeps its id, deletion vectors go.

Trino 476, which the tests start by themselves, stops at version 2; AURUM_TEST_TRINO_URL names another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.trino.capabilities import probe
from aurum_orchestration.maintenance.backends.iceberg.trino.client import TrinoClient
from aurum_orchestration.maintenance.backends.iceberg.trino.commits import Made
from aurum_orchestration.maintenance.backends.iceberg.trino.connection import TrinoConnection
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
from aurum_orchestration.maintenance.backends.iceberg.trino.verify import compare
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration_tests.integration.trino.upkeep import BELOW, Shared, shared
from aurum_orchestration_tests.servers.trino import TrinoServer

ROWS = 'SELECT id, word, "$row_id", "$last_updated_sequence_number" FROM {t}.t ORDER BY id'
BOTH = pytest.mark.parametrize("embedded", [True, False])


@pytest.fixture
def lake(trino: TrinoServer, tmp_path: Path) -> Iterator[Shared]:
    with shared(trino, tmp_path) as made, closing(client(made)) as asked:
        if probe(asked).newest_format < 3:
            pytest.skip(f"Trino {asked.version} writes no format version 3")
        yield made


def client(lake: Shared) -> TrinoClient:
    config = {name: value for name, value in lake.config().items() if name in TrinoConnection.model_fields}
    return TrinoClient(TrinoConnection.model_validate(config), "lake")


def fill(lake: Shared, version: int = 3) -> list[tuple[Any, ...]]:
    """A table of six rows in three files, one of them deleted; its rows."""
    lake.sql(f"CREATE TABLE {{t}}.t (id bigint, word varchar) WITH (format_version = {version})")
    for first in (0, 2, 4):
        lake.sql(f"INSERT INTO {{t}}.t VALUES ({first}, 'even'), ({first + 1}, 'odd')")
    if version == 3:
        lake.sql("DELETE FROM {t}.t WHERE id = 3")
        return lake.sql(ROWS)
    lake.sql("ALTER TABLE {t}.t SET PROPERTIES format_version = 3")
    return lake.sql(ROWS)


@BOTH
async def test_rows_keep_their_ids_and_their_last_change(lake: Shared, *, embedded: bool) -> None:
    before = fill(lake)
    assert len({row[2] for row in before}) == 5
    done = await lake.run("compaction", min_input_files=2, options={"embedded": embedded})
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert done.verification is not None
    assert done.verification.ok
    assert done.verification.method.endswith("with row ids")
    assert (done.metrics["files_rewritten"], done.metrics["files_added"]) == (3, 1)
    assert lake.sql(ROWS) == before
    assert lake.sql('SELECT count(*) FROM {t}."t$files" WHERE content <> 0') == [(0,)]


@BOTH
async def test_the_other_operations_leave_rows_and_ids_alone(lake: Shared, *, embedded: bool) -> None:
    before = fill(lake)
    options: dict[str, Any] = {"embedded": embedded}
    many = int(lake.sql('SELECT count(*) FROM {t}."t$manifests"')[0][0])
    rewritten = await lake.run("manifests", options=options)
    assert rewritten.status == MaintenanceStatus.COMPLETED, rewritten.problem
    assert rewritten.verification is not None
    assert rewritten.verification.ok
    assert int(lake.sql('SELECT count(*) FROM {t}."t$manifests"')[0][0]) < many
    expired = await lake.run("retention", options=options, retention_days=0, retain_last=1, **BELOW)
    assert expired.status == MaintenanceStatus.COMPLETED, expired.problem
    assert len(lake.table().snapshots()) == 1
    cleaned = await lake.run("vacuum", options=options, older_than_days=0, **BELOW)
    assert cleaned.status in {MaintenanceStatus.COMPLETED, MaintenanceStatus.SKIPPED}, cleaned.problem
    assert (await lake.run("stats", ndv=True, options=options)).status == MaintenanceStatus.COMPLETED
    assert lake.sql(ROWS) == before


async def test_rows_from_before_the_upgrade_get_their_ids_by_the_rewrite(lake: Shared) -> None:
    before = fill(lake, version=2)
    assert {row[2] for row in before} == {None}
    done = await lake.run("compaction", min_input_files=2)
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert done.verification is not None
    assert done.verification.ok
    assert not done.verification.method.endswith("with row ids")
    after = lake.sql(ROWS)
    assert [row[:2] for row in after] == [row[:2] for row in before]
    assert len({row[2] for row in after} - {None}) == 6


def test_a_rewrite_that_gives_new_ids_is_found(lake: Shared) -> None:
    """The same values in rows that were deleted and inserted again, as a rewrite without lineage would leave them."""
    fill(lake)
    head = 'SELECT snapshot_id FROM {t}."t$refs"'
    [(before,)] = lake.sql(head)
    lake.sql("DELETE FROM {t}.t WHERE id = 4")
    lake.sql("INSERT INTO {t}.t VALUES (4, 'even')")
    [(after,)] = lake.sql(head)
    with closing(client(lake)) as asked:
        table = TrinoTable(asked, TableId("lake", (lake.namespace, "t")), probe(asked))
        made = Made(after, before, {"added-delete-files": "1"})
        assert not compare(table, made, "", checksum=True).verification.ok
        assert compare(table, made, "", checksum=False).verification.ok
