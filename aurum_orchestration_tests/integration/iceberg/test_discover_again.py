"""Discovery reads a table's metadata file once: a sensor lists the whole catalog every minute."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from pyiceberg.types import StringType

from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.threads import run_sync
from aurum_orchestration_tests.lake import build_lake, lake_catalog


def test_what_changed_is_read_again_and_nothing_else(tmp_path: Path) -> None:
    build_lake(tmp_path, sick=False)
    uri = f"sqlite:///{tmp_path}/catalog.db"
    backend = IcebergMaintenanceBackend({"catalog": {"type": "sql", "uri": uri}}, name="lake")
    run_sync(backend.connect())

    def columns() -> dict[str, list[str]]:
        return {found.table.name: [name for name, _ in found.columns] for found in backend.discover([])}

    before = columns()
    assert before["hubs"] == before["curves"] == ["id", "day", "hub", "price"]
    with closing(lake_catalog(tmp_path)) as catalog:
        with catalog.load_table("market.curves").update_schema() as update:
            update.add_column("unit", StringType())
        Path(catalog.load_table("market.hubs").metadata_location.removeprefix("file://")).unlink()
        catalog.drop_table("market.trades")
    after = columns()
    assert after["curves"] == [*before["curves"], "unit"]
    assert after["hubs"] == before["hubs"]
    assert set(after) == {"curves", "hubs", "odd.name"}
    run_sync(backend.disconnect())
