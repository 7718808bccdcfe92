"""The commands on a real lake: what they print, what they change, and how they exit."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest

from aurum_orchestration.cli.reference import output_schema
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import History
from aurum_orchestration_tests.command import Outcome, aurum
from aurum_orchestration_tests.golden import assert_golden, stable_json, stable_text
from aurum_orchestration_tests.lake import FIRST, FLEET, SECOND, append_small_files, lake_catalog

JSON = ("--output", "json")
TRADES = "lake.market.trades"


def test_golden_text_before_and_after(home: Path) -> None:
    for name, arguments in {
        "status-before": ["status"],
        "plan": ["plan"],
        "run": ["run"],
        "status-after": ["status"],
        "plan-after": ["plan", "--operation", "compaction"],
        "history": ["history"],
        "discover": ["discover"],
    }.items():
        outcome = aurum(*arguments)
        assert (outcome.code, outcome.err) == (0, "")
        assert_golden(f"lake/{name}.txt", stable_text(outcome.out, home))


def test_golden_json_before_and_after(home: Path) -> None:
    for name, schema, arguments in [
        ("status-before", "status", ["status"]),
        ("plan", "run", ["plan", "--operation", "compaction"]),
        ("run", "run", ["run"]),
        ("history", "history", ["history"]),
        ("discover", "discover", ["discover"]),
    ]:
        outcome = aurum(*arguments, *JSON)
        assert (outcome.code, outcome.err) == (0, "")
        jsonschema.validate(
            outcome.json, output_schema(schema), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        )
        assert all(one["schema_version"] == 1 for one in outcome.json)
        text = json.dumps(stable_json(_without_file_names(outcome), home), indent=2, ensure_ascii=False)
        assert_golden(f"lake/{name}.json", text + "\n")


def test_explain_tells_where_each_value_comes_from(home: Path) -> None:
    text = aurum("explain", TRADES)
    assert (text.code, text.err) == (0, "")
    assert "compaction: " in text.out
    assert "default" in text.out
    told = aurum("explain", TRADES, *JSON)
    jsonschema.validate(told.json, output_schema("explain"))
    sections = {one["operation"]: one for one in told.json["operations"]}
    sources = {entry["key"]: entry["source"] for entry in sections["compaction"]["policy"]}
    assert sources["enabled"] == "default"
    assert any(source.startswith(("fleet (", "match ", "backend ")) for source in sources.values())
    assert sections["compaction"]["decision"]["code"] == "recommended"


def test_explain_of_an_unknown_table_offers_the_nearest(shared_home: Path) -> None:
    outcome = aurum("explain", "lake.market.trade")
    assert outcome.code == 2
    assert TRADES in outcome.err


def test_doctor_finds_a_sound_lake_sound_and_writes_nothing(shared_home: Path) -> None:
    before = {path for path in shared_home.rglob("*") if path.is_file()}
    told = aurum("doctor", *JSON)
    assert (told.code, told.err) == (0, "")
    jsonschema.validate(told.json, output_schema("doctor"))
    found = {target["target"]: target for target in told.json["targets"]}
    assert list(found) == ["fleet", "history", "lake", "tonight", "dagster"]
    assert {one["check"] for one in found["lake"]["findings"]} == {"reachable", "version", "rights", "space"}
    assert {path for path in shared_home.rglob("*") if path.is_file()} == before


def test_doctor_names_what_would_fail_tonight(home: Path) -> None:
    (metadata,) = [path for path in home.glob("warehouse/market/trades/metadata/*.json") if "00000-" in path.name]
    for path in metadata.parent.glob("*.json"):
        path.write_text("{")
    outcome = aurum("doctor")
    assert outcome.code == 1
    assert TRADES in outcome.out
    assert "aurum status tells why" in outcome.out


def test_doctor_explains_a_backend_that_is_down(home: Path) -> None:
    (home / "catalog.db").unlink()
    outcome = aurum("doctor", *JSON)
    assert outcome.code == 1
    (lake,) = [target for target in outcome.json["targets"] if target["target"] == "lake"]
    assert lake["status"] == "failed"
    assert lake["findings"][0]["check"] == "reachable"


def _without_file_names(outcome: Outcome) -> object:
    """File names are random, so their number stands for them; steps end in any order."""
    value = outcome.json
    for one in value:
        for step in one.get("steps") or []:
            step["detail"]["files"] = len(step["detail"]["files"])
        (one.get("steps") or []).sort(key=lambda step: step["number"])
    return value


def test_a_run_compacts_what_is_sick_proves_it_and_records_it(home: Path) -> None:
    (report,) = aurum("run", *JSON).json
    assert (report["table"], report["status"]) == (TRADES, "completed")
    assert report["metrics"]["files_rewritten"] == 60
    assert report["metrics"]["files_added"] == 2
    assert report["verification"] == {
        "method": report["verification"]["method"],
        "rows_before": 3000,
        "rows_after": 3000,
        "checksum_equal": True,
    }
    with closing(lake_catalog(home)) as catalog:
        table = catalog.load_table("market.trades")
        assert len(list(table.scan().plan_files())) == 2
    (entry,) = aurum("history", *JSON).json
    assert entry["operation_id"] == report["operation_id"]
    assert "snapshot" in entry["undo"]


@pytest.mark.parametrize("arguments", [["plan"], ["run", "--dry-run"], ["plan", "--operation", "compaction"]])
def test_a_dry_run_writes_nothing_anywhere(shared_home: Path, arguments: list[str]) -> None:
    before = _tree(shared_home)
    outcome = aurum(*arguments, *JSON)
    assert outcome.json[0]["status"] == "planned"
    assert outcome.json[0]["dry_run"] is True
    assert _tree(shared_home) == before


def test_status_writes_nothing_but_the_discovery_cache(shared_home: Path) -> None:
    def outside_the_cache() -> dict[str, object]:
        return {path: content for path, content in _tree(shared_home).items() if not path.startswith("discovery")}

    before = outside_the_cache()
    assert aurum("status").code == 0
    assert outside_the_cache() == before


def _tree(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_run_that_has_to_wait_does_not_say_that_all_is_well(home: Path) -> None:
    fleet = home / "fleet.yaml"
    fleet.write_text(
        fleet.read_text().replace("policy:\n", 'policy:\n  calendar: {blackouts: ["2020-01-01/2099-01-01"]}\n')
    )
    outcome = aurum("run")
    assert (outcome.code, outcome.out) == (0, "Nothing to do now. What waits, and for what: aurum status.\n")
    assert ", 1 waiting." in aurum("status").out


def test_dry_run_and_plan_print_the_same(shared_home: Path) -> None:
    assert stable_text(aurum("run", "--dry-run").out) == stable_text(aurum("plan").out)


def test_tables_are_chosen_by_globs(shared_home: Path) -> None:
    tables = [one["table"] for one in aurum("status", "--table", "lake.*.hubs", "--table", TRADES, *JSON).json]
    assert sorted(tables) == ["lake.market.hubs", TRADES]
    (quoted,) = aurum("status", "--table", 'lake.market."odd.name"', *JSON).json
    assert quoted["table"] == 'lake.market."odd.name"'


def test_named_operation_on_a_healthy_table_is_skipped_with_exit_0(home: Path) -> None:
    outcome = aurum("run", "--operation", "compaction", "--table", "lake.market.hubs", *JSON)
    assert outcome.code == 0
    assert [one["status"] for one in outcome.json] == ["skipped"]


def test_an_operation_that_is_not_available_is_skipped_with_the_reason(home: Path) -> None:
    outcome = aurum("run", "--operation", "reindex", "--table", TRADES, *JSON)
    assert outcome.code == 0
    assert [one["status"] for one in outcome.json] == ["skipped"]
    assert "reindex" in outcome.json[0]["reason"]


def test_nothing_to_do_is_exit_0(shared_home: Path) -> None:
    outcome = aurum("run", "--table", "lake.market.hubs")
    assert outcome.code == 0
    assert "0 failed" not in outcome.out


def test_parameters_reach_the_operation_typed(shared_home: Path) -> None:
    outcome = aurum(
        "plan",
        *("--operation", "compaction", "--table", TRADES, "--parameter", "partition_filter=day = '2026-01-31'"),
        *("--parameter", "max_concurrent_groups=1"),
        *JSON,
    )
    (report,) = outcome.json
    assert [step["detail"]["partition"] for step in report["steps"]] == ["day=2026-01-31"]


def test_a_budget_cuts_the_less_needy(home: Path) -> None:
    with closing(lake_catalog(home)) as catalog:
        append_small_files(catalog.load_table("market.curves"), [SECOND], 25)
    assert len(aurum("plan", *JSON).json) == 2
    (planned,) = [one for one in aurum("plan", "--max-tables", "1", *JSON).json if one["status"] == "planned"]
    assert planned["table"] == TRADES
    assert not [one for one in aurum("plan", "--max-gib", "0", *JSON).json if one["status"] == "planned"]
    assert not [one for one in aurum("plan", "--max-minutes", "0", *JSON).json if one["status"] == "planned"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["status", "--table", "lake.markt.*"], "'lake.market.*'"),
        (["plan", "--table", "lake.market.trade"], "'lake.market.trades'"),
        (["run", "--table", "lake.market.*", "--table", "nothing.*.*"], "'nothing.*.*' matches no table"),
        (["discover", "--table", "lake.nothing.*"], "matches no table"),
        (["history", "--table", "lake.nothing.*"], "matches no table"),
        (["status", "--table", "lake..x"], "lake..x"),
        (["run", "--operation", "compactoin"], "'compaction'"),
        (["status", "--operation", "compactoin"], "'compaction'"),
        (["history", "--operation", "compactoin"], "'compaction'"),
        (["run", "--parameter", "verify=no"], "--operation"),
        (["run", "--operation", "compaction", "--parameter", "verifi=no"], "'verify'"),
        (["plan", "--operation", "compaction", "--parameter", "min_input_files=1"], "min_input_files"),
        (["history", "--since", "yesterday"], "7d"),
    ],
)
def test_bad_usage_exits_2_with_a_hint_and_a_clean_stdout(shared_home: Path, arguments: list[str], told: str) -> None:
    outcome = aurum(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert told in outcome.err


def test_bad_usage_with_json_is_a_problem_on_stderr(shared_home: Path) -> None:
    outcome = aurum("run", "--operation", "compactoin", *JSON)
    assert (outcome.code, outcome.out) == (2, "")
    problem = json.loads(outcome.err)
    assert (problem["type"], problem["status"], problem["transient"]) == ("unknown-name", 404, False)
    assert "'compaction'" in problem["hint"]


def _mistyped_key(fleet: str) -> str:
    return fleet.replace("min_input_files", "min_input_file")


def _no_version(fleet: str) -> str:
    return fleet.replace("version: 1\n", "")


@pytest.mark.parametrize(("spoil", "told"), [(_mistyped_key, "min_input_files"), (_no_version, "version")])
def test_a_wrong_fleet_file_exits_2_and_names_the_place(home: Path, spoil: Callable[[str], str], told: str) -> None:
    (home / "fleet.yaml").write_text(spoil(FLEET))
    outcome = aurum("status")
    assert (outcome.code, outcome.out) == (2, "")
    assert "fleet.yaml" in outcome.err
    assert told in outcome.err


def test_a_wrong_setting_exits_2(shared_home: Path) -> None:
    outcome = aurum("status", AURUM_LOG_LEVEL="LOUD")
    assert outcome.code == 2
    assert "AURUM_LOG_LEVEL" in outcome.err


def test_the_fleet_file_is_named_before_or_after_the_command(shared_home: Path, tmp_path: Path) -> None:
    (tmp_path / "only-hubs.yaml").write_text(FLEET.replace("engine: pyiceberg", 'discover: ["market.hubs"]'))
    chosen = ("--fleet", str(tmp_path / "only-hubs.yaml"))
    only_hubs = ["lake.market.hubs"]
    assert [one["table"] for one in aurum(*chosen, "status", *JSON).json] == only_hubs
    assert [one["table"] for one in aurum("status", *chosen, *JSON).json] == only_hubs
    assert [one["table"] for one in aurum("--fleet", "missing.yaml", "status", *chosen, *JSON).json] == only_hubs
    assert aurum("status", "--fleet", "missing.yaml").code == 2


def test_a_lease_held_by_another_fails_with_its_holder(home: Path) -> None:
    with closing(History(f"sqlite:///{home}/history.db")) as history:
        history.acquire(TableId.parse(TRADES), holder="ann@etl-1:4711", operation_id="x", ttl=timedelta(minutes=5))
    outcome = aurum("run", *JSON)
    assert outcome.code == 1
    (report,) = outcome.json
    assert report["status"] == "failed"
    assert report["problem"]["type"] == "lease-held"
    assert "ann@etl-1:4711" in report["problem"]["detail"]
    assert "ann@etl-1:4711" in aurum("run").out


def test_one_bad_table_is_named_and_stops_no_other(home: Path) -> None:
    with closing(lake_catalog(home)) as catalog:
        append_small_files(catalog.load_table("market.curves"), [SECOND], 25)
        victim = next(iter(catalog.load_table("market.curves").scan().plan_files())).file.file_path
    Path(victim.removeprefix("file://")).unlink()
    outcome = aurum("run", *JSON)
    assert outcome.code == 1
    assert {one["table"]: one["status"] for one in outcome.json} == {
        TRADES: "completed",
        "lake.market.curves": "failed",
    }


SECOND_BACKEND = """\
  archive:
    type: iceberg
    catalog: {type: sql, uri: "${ARCHIVE_URI}", warehouse: "file:///nowhere"}
"""


def test_a_backend_that_is_down_is_named_stops_no_other_and_keeps_its_password(home: Path) -> None:
    (home / "fleet.yaml").write_text(FLEET.replace("policy:\n", SECOND_BACKEND + "policy:\n", 1))
    for arguments in (["status"], ["discover"], ["status", *JSON], ["discover", *JSON]):
        outcome = aurum(*arguments, "-vv", ARCHIVE_URI="postgresql+psycopg://desk:hunter2@127.0.0.1:1/none")
        assert outcome.code == 1
        assert TRADES in outcome.out
        assert "archive" in outcome.out + outcome.err
        assert "hunter2" not in outcome.out + outcome.err


def test_history_filters(home: Path) -> None:
    aurum("run")
    assert len(aurum("history", *JSON).json) == 1
    assert len(aurum("history", "--table", "lake.*.trades", "--since", "1h", *JSON).json) == 1
    assert aurum("history", "--table", "lake.market.hubs", *JSON).json == []
    assert aurum("history", "--status", "failed", *JSON).json == []
    assert len(aurum("history", "--status", "completed", "--operation", "compaction", *JSON).json) == 1
    assert aurum("history", "--since", "2999-01-01", *JSON).json == []
    assert "Nothing is recorded" in aurum("history", "--status", "failed").out


def test_history_knows_a_table_that_is_gone(home: Path) -> None:
    aurum("run")
    with closing(lake_catalog(home)) as catalog:
        catalog.drop_table("market.trades")
    aurum("discover")
    assert aurum("history", "--table", TRADES).code == 0


def test_history_of_a_store_that_was_never_written_is_empty_and_creates_nothing(home: Path) -> None:
    assert aurum("history", *JSON).json == []
    assert not (home / "history.db").exists()


def test_undo_takes_a_compaction_back_and_is_recorded(home: Path) -> None:
    (done,) = aurum("run", "--operation", "compaction", "--table", TRADES, *JSON).json
    planned = aurum("undo", done["operation_id"], "--dry-run")
    assert (planned.code, "Let main point to snapshot" in planned.out) == (0, True)
    assert len(aurum("history", *JSON).json) == 1
    undone = aurum("undo", done["operation_id"], *JSON)
    assert undone.code == 0
    (report,) = undone.json
    assert (report["operation"], report["status"], report["table"]) == ("undo", "completed", TRADES)
    assert report["verification"]["rows_before"] == report["verification"]["rows_after"] == 3000
    newest, first = aurum("history", *JSON).json
    assert (newest["operation"], first["operation_id"]) == ("undo", done["operation_id"])
    assert [one["operation"] for one in aurum("history", "--operation", "undo", *JSON).json] == ["undo"]
    (status,) = aurum("status", "--table", TRADES, *JSON).json
    assert status["metrics"]["data_files"] == 60


def test_a_refused_undo_exits_1_and_says_what_came_after(home: Path) -> None:
    (done,) = aurum("run", "--operation", "compaction", "--table", TRADES, *JSON).json
    with closing(lake_catalog(home)) as catalog:
        append_small_files(catalog.load_table("market.trades"), [FIRST], 1)
    refused = aurum("undo", done["operation_id"])
    assert refused.code == 1
    assert "1 snapshot was committed by others since" in " ".join(refused.out.split())


def test_an_unknown_operation_id_exits_2(home: Path) -> None:
    outcome = aurum("undo", "0" * 32)
    assert (outcome.code, outcome.out) == (2, "")
    assert "history has no operation" in " ".join(outcome.err.split())
