"""The code location: loads whatever is down, shows every table, twice side by side."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg
import pytest

from aurum_orchestration.dagster_edge.assets import table_specs
from aurum_orchestration.definitions import build_definitions
from aurum_orchestration.fleet.config import FleetConfig
from aurum_orchestration.fleet.fleet import Fleet
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.interfaces import DiscoveredTable
from aurum_orchestration.settings import AurumSettings

SOME = {"catalog": {"type": "sql", "uri": "sqlite:////nowhere/catalog.db", "warehouse": "file:///nowhere"}}


def fleet_of(home: Path, *backends: str, tables: Sequence[Mapping[str, object]] = ()) -> Fleet:
    config = {"version": 1, "backends": {name: {"type": "iceberg", **SOME} for name in backends}}
    return Fleet(FleetConfig.model_validate({**config, "tables": list(tables)}), home=home)


def settings(home: Path) -> AurumSettings:
    return AurumSettings(home=home, fleet=home / "fleet.yaml")


def found(*parts: str, **more: object) -> DiscoveredTable:
    return DiscoveredTable(TableId("lake", parts), "iceberg", **more)  # type: ignore[arg-type]


def specs(definitions: dg.Definitions) -> dict[tuple[str, ...], dg.AssetSpec]:
    return {tuple(spec.key.path): spec for spec in definitions.assets or [] if isinstance(spec, dg.AssetSpec)}


def test_it_loads_with_nothing_discovered_and_nothing_reachable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    definitions = build_definitions(fleet_of(home, "lake"), settings(home))
    dg.Definitions.validate_loadable(definitions)
    assert not specs(definitions)
    assert "No table is known yet" in caplog.text
    assert not home.exists()


def test_a_table_is_an_external_asset_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    rule = {
        "match": "lake.market.*",
        "owners": ["team:desk"],
        "description": "Deals done.",
        "tags": {"tier": "gold!"},
    }
    fleet = fleet_of(tmp_path, "lake", tables=[rule])
    columns = (("id", "long"), ("price", "double"))
    fleet.remember("lake", [found("market", "trades", location="s3://lake/trades", columns=columns)])
    definitions = build_definitions(fleet, settings(tmp_path))
    dg.Definitions.validate_loadable(definitions)
    (spec,) = specs(definitions).values()
    assert spec.key.path == ["lake", "market", "trades"]
    assert spec.group_name == "lake/market"
    assert spec.kinds == {"iceberg", "parquet"}
    assert list(spec.owners) == ["team:desk"]
    assert spec.description == "Deals done."
    assert spec.tags["aurum/backend"] == "lake"
    assert spec.tags["tier"].startswith("gold_.")
    assert spec.metadata["dagster/table_name"] == "market.trades"
    assert spec.metadata["aurum/table"] == "lake.market.trades"
    assert spec.metadata["dagster/uri"] == "s3://lake/trades"
    assert [(column.name, column.type) for column in spec.metadata["dagster/column_schema"].columns] == list(columns)
    node = definitions.get_repository_def().asset_graph.get(spec.key)
    assert node.is_external
    assert not node.is_executable


def test_odd_names_load(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, "lake")
    odd = [("my.ns", 't"x'), ("größe", "a b/c"), ("n", "*"), ("n", "x" * 300), ("n", "a", "b", "c")]
    fleet.remember("lake", [found(*parts) for parts in odd])
    definitions = build_definitions(fleet, settings(tmp_path))
    dg.Definitions.validate_loadable(definitions)
    assert [key[1:] for key in specs(definitions)] == odd
    assert {spec.metadata["aurum/table"] for spec in specs(definitions).values()} == {
        str(TableId("lake", parts)) for parts in odd
    }


def test_a_table_may_be_somebody_elses_asset(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rules = [
        {"match": "lake.n.a", "asset_key": ["shop", "orders"]},
        {"match": "lake.n.b", "asset_key": ["shop", "orders"]},
    ]
    fleet = fleet_of(tmp_path, "lake", tables=rules)
    fleet.remember("lake", [found("n", "a"), found("n", "b"), found("n", "c")])
    definitions = build_definitions(fleet, settings(tmp_path))
    dg.Definitions.validate_loadable(definitions)
    assert list(specs(definitions)) == [("shop", "orders"), ("lake", "n", "c")]
    assert "lake.n.b has the asset key of another table" in caplog.text


def test_a_tag_that_dagster_does_not_take_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fleet = fleet_of(tmp_path, "lake", tables=[{"match": "lake.**", "tags": {"no good key!": "x", "a/b": "y"}}])
    fleet.remember("lake", [found("n", "a")])
    (spec,) = specs(build_definitions(fleet, settings(tmp_path))).values()
    assert dict(spec.tags) == {"aurum/backend": "lake", "a/b": "y"} | {
        key: value for key, value in spec.tags.items() if key.startswith("dagster/kind/")
    }
    assert "no good key!" in caplog.text


def test_two_code_locations_live_side_by_side(tmp_path: Path) -> None:
    one, two = fleet_of(tmp_path / "1", "north"), fleet_of(tmp_path / "2", "south")
    two.remember("south", [DiscoveredTable(TableId("south", ("n", "t")), "iceberg")])
    first, second = build_definitions(one, settings(tmp_path / "1")), build_definitions(two, settings(tmp_path / "2"))
    assert not specs(first)
    assert list(specs(second)) == [("south", "n", "t")]
    assert {sensor.name.rpartition("_")[2] for sensor in first.sensors or []} == {"north"}
    assert {sensor.name.rpartition("_")[2] for sensor in second.sensors or []} == {"south"}
    services = [(each.resources or {})["aurum_service"].service for each in (first, second)]
    assert services[0] is not services[1]
    assert services[0].settings.home != services[1].settings.home


def test_backends_whose_names_dagster_cannot_tell_apart(tmp_path: Path) -> None:
    definitions = build_definitions(fleet_of(tmp_path, "a-b", "a_b", "a.b"), settings(tmp_path))
    dg.Definitions.validate_loadable(definitions)
    names = [sensor.name for sensor in definitions.sensors or [] if sensor.name.startswith("compaction_")]
    assert len(set(names)) == 3
    assert names[0] == "compaction_a_b"


@pytest.mark.parametrize("tables", [1_000, pytest.param(10_000, marks=pytest.mark.thorough)])
def test_thousands_of_tables_load(tables: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fleet = fleet_of(tmp_path, "lake")
    fleet.remember("lake", [found(f"ns{number % 50}", f"t{number}") for number in range(tables)])
    caplog.set_level(logging.WARNING)
    definitions = build_definitions(fleet, settings(tmp_path))
    assert len(definitions.get_repository_def().asset_graph.get_all_asset_keys()) == tables
    assert not caplog.records


def test_columns_are_left_out_where_they_would_be_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = fleet_of(tmp_path, "lake")
    columns = (("id", "long"), ("price", "double"))
    fleet.remember("lake", [found("n", "a", columns=columns), found("n", "b", columns=columns)])

    def shown() -> int:
        return sum("dagster/column_schema" in spec.metadata for spec in table_specs(fleet))

    assert shown() == 2
    monkeypatch.setattr("aurum_orchestration.dagster_edge.assets.MOST_COLUMNS", 3)
    assert shown() == 0


def test_jobs_are_a_handful_whatever_the_fleet(tmp_path: Path) -> None:
    jobs = build_definitions(fleet_of(tmp_path, "lake"), settings(tmp_path)).jobs or []
    assert [job.name for job in jobs] == [*MaintenanceFactory.operations(), "maintenance", "health", "purge"]
    assert {job.executor_def.name for job in jobs if isinstance(job, dg.JobDefinition)} == {"in_process"}
