"""``aurum maintenance --all`` on a real database: the nine operations in one object, as a dry run and for good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from aurum_orchestration.cli.reference import output_schema
from aurum_orchestration_tests.command import Outcome, aurum
from aurum_orchestration_tests.integration.postgres.support import ROWS, TRADES, Pg

NINE = ["vacuum", "reindex", "cleanup", "logs", "sessions", "views", "stats", "bloat", "backup"]

TABLES = """
CREATE TABLE failed_task (id bigserial PRIMARY KEY, failed_at timestamptz NOT NULL);
CREATE TABLE audit_log (id bigserial PRIMARY KEY, created_at timestamptz NOT NULL);
CREATE TABLE task_log (id bigserial PRIMARY KEY, started_at timestamptz NOT NULL);
CREATE TABLE django_session (session_key text PRIMARY KEY, expire_date timestamptz NOT NULL);
INSERT INTO failed_task (failed_at) SELECT now() - g * interval '1 day' FROM generate_series(1, 900) g;
INSERT INTO audit_log (created_at) SELECT now() - g * interval '1 day' FROM generate_series(1, 200) g;
INSERT INTO task_log (started_at) SELECT now() - g * interval '1 day' FROM generate_series(1, 100) g;
INSERT INTO django_session SELECT 's' || g, now() + (g - 40) * interval '1 hour' FROM generate_series(1, 50) g;
CREATE MATERIALIZED VIEW curves AS SELECT curve, count(*) AS n FROM trades GROUP BY 1;
CREATE UNIQUE INDEX curves_curve ON curves (curve);
"""
FLEET = """    cleanup:
      - {title: Failed Tasks, table: public.failed_task, time_column: failed_at, age_days: 730}
    logs:
      - {title: Audit Logs, table: public.audit_log, time_column: created_at, age_days: 90}
      - {title: Task Logs, table: public.task_log, time_column: started_at, age_days: 30}
    sessions:
      - {title: Sessions, table: public.django_session, expiry_column: expire_date}
policy:
  backup: {path: "%s"}
"""
COUNTS = "SELECT (SELECT count(*) FROM failed_task), (SELECT count(*) FROM audit_log), " \
    "(SELECT count(*) FROM task_log), (SELECT count(*) FROM django_session)"  # fmt: skip


@pytest.fixture
def shop(pg: Pg) -> Pg:
    """The seed's tables beside the trades, and churn in these."""
    pg.script(TABLES)
    pg.sql("DELETE FROM trades WHERE id % 2 = 0", "ANALYZE")
    return pg


def maintenance(pg: Pg, folder: Path, *arguments: str) -> Outcome:
    settings = pg.settings(FLEET % folder)
    places = {"AURUM_HOME": str(settings.home), "AURUM_FLEET": str(settings.fleet)}
    outcome = aurum(
        "maintenance", *arguments, "--output", "json", **places, AURUM_HISTORY_URL=settings.history_url or ""
    )
    jsonschema.validate(outcome.json, output_schema("maintenance"))
    return outcome


def told(outcome: Outcome, name: str) -> dict[str, Any]:
    one: dict[str, Any] = outcome.json[name]
    assert one["operation"] == name
    return one


def test_all_nine_planned_and_then_done(shop: Pg, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    rows, left = shop.sql(COUNTS)[0], shop.checksum()
    dry = maintenance(shop, folder, "--all", "--dry-run")
    assert dry.code == 0, dry.err
    assert [name for name in dry.json if name not in {"schema_version", "metadata"}] == NINE
    assert {name: told(dry, name)["status"] for name in NINE} == {
        **dict.fromkeys(NINE, "planned"),
        "reindex": "skipped",
    }
    assert (dry.json["metadata"]["dry_run"], dry.json["metadata"]["database"]) == (True, "pg")
    assert shop.sql(COUNTS)[0] == rows
    assert not folder.exists()
    assert not (shop.home / "history.db").exists()

    done = maintenance(shop, folder, "--all")
    assert done.code == 0, done.out
    assert {name: told(done, name)["status"] for name in NINE} == {
        **dict.fromkeys(NINE, "completed"),
        "reindex": "skipped",
    }
    assert told(done, "vacuum")["details"][TRADES]["dead_tuples_removed"] == ROWS / 2
    assert (told(done, "cleanup")["rows_processed"], told(done, "cleanup")["errors"]) == (171, [])
    logs = told(done, "logs")
    assert logs["rows_deleted"] == 111 + 71
    assert {title: (one["deleted"], one["days"]) for title, one in logs["details"].items()} == {
        "Audit Logs": (111, 90),
        "Task Logs": (71, 30),
    }
    assert told(done, "sessions")["rows_deleted"] == 40
    assert told(done, "views")["views_refreshed"] == 1
    bloat, stats = told(done, "bloat"), told(done, "stats")
    assert bloat["reports"] == len(bloat["details"]) > 1
    assert bloat["bloat_bytes"] == bloat["details"][f"pg.{shop.name}"]["bloat_bytes"] > 0
    assert stats["database_bytes"] == stats["details"][f"pg.{shop.name}"]["database_bytes"]
    assert 0 <= stats["cache_hit_ratio"] <= 1
    assert told(done, "backup")["backups_made"] == 1
    assert set(done.json["metadata"]) == {"timestamp", "duration_seconds", "dry_run", "database"}
    assert done.json["metadata"]["dry_run"] is False
    assert shop.sql(COUNTS)[0] == (729, 89, 29, 10)
    assert shop.checksum() == left
    assert len([one for one in folder.iterdir() if one.suffix == ".dump"]) == 1


def test_who_is_in_the_way_is_warned_of_before_the_work(pg: Pg, tmp_path: Path) -> None:
    with pg.connect(application_name="report") as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE trades")
        dry = maintenance(pg, tmp_path / "backups", "--operation", "backup", "--dry-run")
        pid = other.info.backend_pid
    assert told(dry, "backup")["warnings"] == [f"pid {pid} (user postgres, report) has trades locked for itself"]
