"""Checks of the tables' assets: which there are, what they say, from an asset's page and from the job health."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.definitions.freshness_evaluator import TimeWindowFreshnessPolicyEvaluator
from dagster._core.loader import LoadingContextForTest

from aurum_orchestration.dagster_edge.checks import CHECKS_PER_OP, table_checks
from aurum_orchestration.definitions import build_definitions
from aurum_orchestration.fleet.config import FleetConfig
from aurum_orchestration.fleet.fleet import Fleet
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.checks import LARGE_FLEET, NAMES
from aurum_orchestration.maintenance.interfaces import DiscoveredTable
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.dagster.conftest import Location

TRADES, CURVES = dg.AssetKey(["lake", "market", "trades"]), dg.AssetKey(["lake", "market", "curves"])


def with_policy(location: Location, **checks: Any) -> None:
    text = location.settings.fleet.read_text()
    words = ", ".join(f"{key}: {value}" for key, value in checks.items())
    assert "\npolicy:\n" in text
    location.settings.fleet.write_text(text.replace("\npolicy:\n", f"\npolicy:\n  checks: {{{words}}}\n"))


def run_checks(location: Location, *keys: dg.AssetCheckKey) -> dg.ExecuteInProcessResult:
    """What the button of an asset's page does."""
    job = location.definitions().get_repository_def().get_implicit_global_asset_job_def()
    selection: Any = set(keys)
    return job.get_subset(asset_check_selection=selection).execute_in_process(
        instance=location.instance, raise_on_error=False
    )


def told(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
    found = result.get_asset_check_evaluations()
    return {(one.asset_key.path[-1], one.check_name): one for one in found}


def last(location: Location, key: dg.AssetCheckKey) -> dg.AssetCheckEvaluation | None:
    found = location.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])
    return found[key].evaluation if key in found else None


def test_every_table_has_the_five_checks(location: Location) -> None:
    location.run("health")
    keys = location.definitions().get_repository_def().asset_graph.asset_check_keys
    assert {key.name for key in keys if key.asset_key == TRADES} == set(NAMES)
    assert len(keys) == 4 * len(NAMES)


def test_the_health_job_tells_the_checks_with_its_numbers(location: Location) -> None:
    with_policy(location, warn_excess_files=20, error_excess_files=50, warn_debt=1)
    result = location.run("health")
    assert result.success
    evaluations = told(result)
    files = evaluations["trades", "file_count"]
    assert not files.passed
    assert files.severity is dg.AssetCheckSeverity.ERROR
    assert files.metadata["excess_files"].value == 58
    assert files.metadata["error_excess_files"].value == 50
    assert files.description == (
        "58 files could be saved, the limit is 50. "
        "Run compaction; if it runs already, look at its last runs, its windows and budgets."
    )
    assert evaluations["trades", "debt"].severity is dg.AssetCheckSeverity.WARN
    assert "no maintenance of it has completed yet" in str(evaluations["trades", "maintenance_recency"].description)
    assert evaluations["curves", "maintenance_recency"].passed
    stored = last(location, dg.AssetCheckKey(TRADES, "file_count"))  # what the asset's page shows
    assert stored is not None
    assert not stored.passed


def test_checks_are_told_again_when_table_or_outcome_changed(location: Location) -> None:
    location.run("health")
    assert not told(location.run("health"))
    assert len(told(location.run("health", checks="all"))) == 20
    with_policy(location, warn_excess_files=20)
    assert set(told(location.run("health"))) == {("trades", "file_count")}
    assert not told(location.run("health"))
    healed = told(location.run("compaction", tables=["lake.market.trades"]))
    assert set(healed) == {("trades", "file_count"), ("trades", "maintenance_recency")}
    assert all(one.passed for one in healed.values())  # what was told as failed is taken back at once
    assert not told(location.run("health"))


def test_maintenance_tells_no_check_that_was_not_told_as_failed(location: Location) -> None:
    with_policy(location, warn_excess_files=20)
    assert not told(location.run("compaction", tables=["lake.market.trades"]))


def test_health_can_leave_the_checks_alone(location: Location) -> None:
    assert not told(location.run("health", checks="none"))


def test_running_a_check_from_the_page_of_an_asset_measures_and_adds_a_point(location: Location) -> None:
    location.run("health")
    location.make_sick("market.curves", files=200)
    result = run_checks(location, dg.AssetCheckKey(CURVES, "file_count"))
    assert result.success
    assert set(told(result)) == {("curves", "file_count")}
    assert not told(result)["curves", "file_count"].passed
    (observed,) = result.get_asset_observation_events()
    files: Any = observed.asset_observation_data.asset_observation.metadata["data_files"].value
    assert files > 200


def test_a_check_of_a_table_that_is_gone_says_what_to_do(location: Location) -> None:
    location.run("health")
    with closing(location.catalog()) as catalog:
        catalog.drop_table("market.curves")
    result = run_checks(location, dg.AssetCheckKey(CURVES, "debt"), dg.AssetCheckKey(TRADES, "debt"))
    assert result.success
    assert "does not list the table any more" in str(told(result)["curves", "debt"].description)
    assert not told(result)["curves", "debt"].passed
    assert told(result)["trades", "debt"].passed


def test_checks_of_a_lake_that_is_down_warn_and_say_why(location: Location) -> None:
    location.run("health")
    (location.home / "catalog.db").write_bytes(b"this is no database")
    result = run_checks(location, dg.AssetCheckKey(TRADES, "debt"))
    evaluation = told(result)["trades", "debt"]
    assert not evaluation.passed
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert str(evaluation.description).startswith("not measured: ")
    health = location.run("health")
    assert not health.success
    assert not told(health)  # the run says it once


def test_checks_without_a_history_warn_and_the_others_are_judged(location: Location) -> None:
    location.run("health")
    (location.home / "history.db").write_bytes(b"this is no database")
    result = run_checks(location, *(dg.AssetCheckKey(TRADES, name) for name in NAMES))
    assert result.success
    evaluations = {name: one for (_, name), one in told(result).items()}
    assert set(evaluations) == set(NAMES)
    recency = evaluations.pop("maintenance_recency")
    assert not recency.passed
    assert recency.severity is dg.AssetCheckSeverity.WARN
    assert "history" in str(recency.description)
    assert all(one.passed for one in evaluations.values())
    assert ("curves", "maintenance_recency") in told(location.run("health"))


# --- how many there are


def fleet_of(tables: int, home: Path, backends: Sequence[str] = ("lake",), checks: Mapping[str, Any] = {}) -> Fleet:
    config = FleetConfig(
        version=1,
        backends={name: {"type": "duck"} for name in backends},
        policy={"checks": dict(checks)},
    )
    fleet = Fleet(config, home=home)
    for name in backends:
        fleet.remember(name, [DiscoveredTable(TableId(name, ("n", f"t{number}")), "table") for number in range(tables)])
    return fleet


def test_a_large_fleet_has_one_check_a_table_in_ops_of_hundreds(tmp_path: Path) -> None:
    checks = table_checks(fleet_of(LARGE_FLEET + 1, tmp_path))
    assert [len(list(one.check_specs)) for one in checks] == [CHECKS_PER_OP, CHECKS_PER_OP, 1]
    assert {spec.name for one in checks for spec in one.check_specs} == {"debt"}


def test_a_policy_names_the_checks_of_its_tables(tmp_path: Path) -> None:
    checks = table_checks(fleet_of(LARGE_FLEET + 1, tmp_path, checks={"names": ["debt", "snapshots"]}))
    assert sum(len(list(one.check_specs)) for one in checks) == 2 * (LARGE_FLEET + 1)
    assert not table_checks(fleet_of(3, tmp_path / "none", checks={"names": []}))


def test_no_op_measures_two_backends(tmp_path: Path) -> None:
    checks = table_checks(fleet_of(2, tmp_path, ["a-b", "a.b"]))
    assert [len({spec.asset_key.path[0] for spec in one.check_specs}) for one in checks] == [1, 1]
    assert len({one.node_def.name for one in checks}) == 2


@pytest.mark.parametrize("tables", [300])
def test_a_code_location_with_many_checks_loads(tables: int, tmp_path: Path) -> None:
    settings = AurumSettings(home=tmp_path, fleet=tmp_path / "fleet.yaml")
    repository = build_definitions(fleet_of(tables, tmp_path), settings).get_repository_def()
    assert len(repository.asset_graph.asset_check_keys) == tables * len(NAMES)


def test_tables_whose_names_make_no_name_have_no_checks_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = fleet_of(0, tmp_path)
    names = ("a b", "x.y", "x_y", "plain")
    fleet.remember("lake", [DiscoveredTable(TableId("lake", ("n", name)), "iceberg") for name in names])
    (checks,) = table_checks(fleet)
    assert {key.asset_key.path[-1] for key in checks.check_keys} == {"plain", "x.y"}
    assert [record.message.split(" has no checks")[0] for record in caplog.records] == [
        'lake.n."a b"',
        "lake.n.x_y",
    ]


# --- why there is a check of our own for it


def test_dagsters_freshness_policies_do_not_see_observations() -> None:
    """Once they do, they could say what `maintenance_recency` says: see ADR 6."""
    key = dg.AssetKey(["lake", "n", "t"])
    policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=2))
    specs = [dg.AssetSpec(key, freshness_policy=policy)]
    graph = dg.Definitions(assets=specs).get_repository_def().asset_graph

    def state(instance: dg.DagsterInstance) -> FreshnessState:
        evaluating = TimeWindowFreshnessPolicyEvaluator().evaluate_freshness(
            LoadingContextForTest(instance), graph.get(key)
        )
        return asyncio.run(evaluating)

    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dg.AssetObservation(key, metadata={"debt_score": 1.0}))
        assert state(instance) is FreshnessState.UNKNOWN
        instance.report_runless_asset_event(dg.AssetMaterialization(key))
        assert state(instance) is FreshnessState.PASS
