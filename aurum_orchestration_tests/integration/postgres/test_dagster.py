"""The code location over a real database: sensors, schedules, checks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from aurum_orchestration.maintenance.checks import BY_FAMILY
from aurum_orchestration_tests.dagster.conftest import Location
from aurum_orchestration_tests.integration.postgres.support import ROWS, TRADES, Pg

RULES = """    sessions:
      - {title: Sessions, table: public.django_session, expiry_column: expire_date}
policy:
  checks: {warn_bloat_percent: 30, min_bloat_mb: 0.5, warn_autovacuum_debt: 2}
"""


@pytest.fixture
def location(pg: Pg, tmp_path: Path) -> Iterator[Location]:
    """The database of trades as ``pg``; its tables are known."""
    pg.sql("CREATE TABLE django_session (session_key text PRIMARY KEY, expire_date timestamptz)")
    (tmp_path / "dagster").mkdir()
    with dg.instance_for_test(temp_dir=str(tmp_path / "dagster")) as instance:
        yield Location(tmp_path / "home", pg.settings(RULES), instance)


def test_churn_makes_the_vacuum_sensor_request_a_run_that_settles_it(pg: Pg, location: Location) -> None:
    names = {sensor.name for sensor in location.definitions().sensors or ()}
    assert {"vacuum_pg", "retention_pg", "reindex_pg"} <= names
    quiet = location.tick(sensor="vacuum_pg")
    assert not quiet.run_requests
    assert "none needs vacuum now" in quiet.skip_message
    pg.sql(f"DELETE FROM trades WHERE id % 2 = 0 AND id <= {ROWS}")
    before = pg.checksum()
    tick = location.tick(quiet.cursor, "vacuum_pg")
    (request,) = tick.run_requests
    assert request.run_config == {"ops": {"vacuum": {"config": {"tables": [TRADES], "respect": "decisions"}}}}
    assert location.tick(tick.cursor, "vacuum_pg").run_requests == [], "requested once"
    job = location.definitions().get_repository_def().get_job("vacuum")
    assert job.execute_in_process(run_config=request.run_config, instance=location.instance).success
    assert pg.health(TRADES)[0].metrics["dead_tuples"] == 0
    assert pg.checksum() == before
    after = location.tick(tick.cursor, "vacuum_pg")
    assert not after.run_requests
    assert "none needs vacuum now" in after.skip_message


def test_schedules_launch_what_a_database_has(location: Location) -> None:
    repository = location.definitions().get_repository_def()

    def operations(name: str) -> list[str]:
        with dg.build_schedule_context(
            instance=location.instance, repository_def=repository, resources=repository.get_top_level_resources()
        ) as context:
            data = repository.get_schedule_def(name).evaluate_tick(context)
        (request,) = data.run_requests or []
        return list(request.run_config["ops"]["maintenance"]["config"]["operations"])

    assert operations("daily_light") == ["logs", "sessions"]
    assert operations("monthly_reindex") == ["reindex"]
    weekly = operations("weekly_full")
    assert {"vacuum", "reindex", "cleanup", "logs", "sessions", "views", "stats", "bloat"} <= set(weekly)
    assert "manifests" not in weekly


def test_tables_and_the_database_have_checks_of_their_own(pg: Pg, location: Location) -> None:
    location.run("health")
    graph = location.definitions().get_repository_def().asset_graph
    by_asset: dict[str, set[str]] = {}
    for key in graph.asset_check_keys:
        by_asset.setdefault(key.asset_key.path[-1], set()).add(key.name)
    assert by_asset["trades"] == set(BY_FAMILY["table"])
    assert by_asset[pg.name] == set(BY_FAMILY["database"])
    pg.sql("DELETE FROM trades WHERE id % 4 <> 0", "ANALYZE trades")
    pg.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'trades_at'::regclass")
    job = location.definitions().get_repository_def().get_implicit_global_asset_job_def()
    wanted = {dg.AssetCheckKey(dg.AssetKey(["pg", "public", "trades"]), name) for name in BY_FAMILY["table"]}
    wanted |= {dg.AssetCheckKey(dg.AssetKey(["pg", pg.name]), "long_transactions")}
    done = job.get_subset(asset_check_selection=wanted).execute_in_process(
        instance=location.instance, raise_on_error=False
    )
    told = {one.check_name: one for one in done.get_asset_check_evaluations()}
    failed = {name for name, one in told.items() if not one.passed}
    assert failed - {"debt"} == {"bloat", "autovacuum_debt", "invalid_indexes", "maintenance_recency"}
    assert "% of the table and its indexes are unused" in (told["bloat"].description or "")
    assert "1 invalid index, written to and never read" in (told["invalid_indexes"].description or "")
    assert "% of autovacuum_freeze_max_age" in (told["xid_age"].description or "")
    assert "MiB of indexes" in (told["unused_indexes"].description or "")
    assert "since the oldest transaction began" in (told["long_transactions"].description or "")
