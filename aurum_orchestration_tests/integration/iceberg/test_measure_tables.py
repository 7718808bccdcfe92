"""Tables in every state that a catalog can hold, and broken ones: named, and no harm to the others."""

from __future__ import annotations

import gc
import gzip
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.types import LongType

from aurum_orchestration.errors import BackendUnavailableError, CorruptTableError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.files import Files
from aurum_orchestration.maintenance.backends.iceberg.measure import IcebergMeasurer
from aurum_orchestration_tests.integration.iceberg.claims import (
    MIB,
    claim,
    edit_metadata,
    measure,
    metadata_json,
    metadata_path,
    point_to,
    policy,
    replace_metadata,
)
from aurum_orchestration_tests.integration.iceberg.support import (
    append_numbers,
    fields,
    local,
    make_table,
    sql_catalog,
)

NUMBERS = fields(id=LongType())
NOTHING = {
    "data_files": 0,
    "data_bytes": 0,
    "rows": 0,
    "avg_file_bytes": 0,
    "small_files": 0,
    "excess_files": 0,
    "delete_files": 0,
    "exact": 1,
}


def test_a_table_without_snapshots(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    health = measure(catalog, table)
    assert health.state_token == "empty"
    assert {name: health.metrics[name] for name in NOTHING} == NOTHING
    assert (health.metrics["snapshots"], health.refusals, health.problem) == (0, {}, None)
    assert 0 <= health.metrics["seconds_since_commit"] < 600


def test_a_table_emptied_by_a_delete(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    append_numbers(table, files=3)
    table.delete("id >= 0")
    health = measure(catalog, table)
    assert health.state_token == str(table.current_snapshot().snapshot_id)  # type: ignore[union-attr]
    assert {name: health.metrics[name] for name in NOTHING} == NOTHING


def test_a_table_of_format_v1(catalog: SqlCatalog) -> None:
    table = catalog.create_table("ns.t", NUMBERS, properties={"format-version": "1"})
    append_numbers(table, files=6)
    health = measure(catalog, table, clear_excess_files=1)
    assert health.metrics["format_version"] == 1
    assert (health.metrics["small_files"], health.metrics["excess_files"], health.metrics["exact"]) == (6, 5, 1)
    assert health.refusals == {}


def test_a_v1_snapshot_that_lists_its_manifests_itself(catalog: SqlCatalog) -> None:
    table = catalog.create_table("ns.t", NUMBERS, properties={"format-version": "1"})
    append_numbers(table, files=6)
    manifests = [manifest.manifest_path for manifest in table.current_snapshot().manifests(table.io)]  # type: ignore[union-attr]

    def inline(metadata: dict[str, Any]) -> None:
        snapshot = metadata["snapshots"][-1]
        del snapshot["manifest-list"]
        snapshot["manifests"] = manifests

    edit_metadata(catalog, table, inline)
    metrics = measure(catalog, table, clear_excess_files=1).metrics
    assert (metrics["small_files"], metrics["excess_files"], metrics["exact"]) == (6, 5, 1)


@pytest.mark.parametrize("suffix", [".gz.metadata.json", ".metadata.json.gz"])
def test_compressed_metadata(catalog: SqlCatalog, suffix: str) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [1000] * 8)
    content = gzip.compress(metadata_path(table).read_bytes())
    replace_metadata(catalog, table, content, suffix)
    metrics = measure(catalog, table).metrics
    assert (metrics["excess_files"], metrics["exact"]) == (7, 1)
    assert metrics["metadata_bytes"] == len(content)


def test_locations_as_java_writes_them(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [1000] * 8)

    def shorten(metadata: dict[str, Any]) -> None:
        snapshot = metadata["snapshots"][-1]
        snapshot["manifest-list"] = snapshot["manifest-list"].replace("file:///", "file:/")

    location = edit_metadata(catalog, table, shorten)
    assert measure(catalog, table).metrics["excess_files"] == 7
    for form in (location.replace("file:///", "file:/"), location.removeprefix("file://")):
        point_to(catalog, table, form)
        assert measure(catalog, table).metrics["excess_files"] == 7


def test_a_percent_sign_in_a_path_is_taken_as_it_is(catalog: SqlCatalog, tmp_path: Path) -> None:
    table = make_table(catalog, NUMBERS, location=f"file://{tmp_path}/a%20b c/ö")
    claim(table, [1000] * 8)
    assert metadata_path(table).exists()
    assert measure(catalog, table).metrics["excess_files"] == 7


def test_without_totals_in_the_summary_the_manifests_tell(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [1000] * 3)

    def strip(metadata: dict[str, Any]) -> None:
        metadata["snapshots"][-1]["summary"] = {"operation": "append"}

    edit_metadata(catalog, table, strip)
    metrics = measure(catalog, table, min_input_files=2).metrics
    assert (metrics["data_files"], metrics["rows"], metrics["excess_files"], metrics["exact"]) == (3, 30, 2, 1)
    unread = measure(catalog, table, measurer=IcebergMeasurer(catalog, "lake", deep_seconds=0))
    assert {"data_files", "excess_files", "small_files"}.isdisjoint(unread.metrics)
    assert unread.metrics["exact"] == 0


def test_names_with_dots_quotes_spaces_and_unicode(catalog: SqlCatalog) -> None:
    names = [("ns", "t.x"), ("ns", 'he said "no"'), ("ns", "größe 表"), ("deep", "er", "t"), ("my.ns", "t")]
    for number, name in enumerate(names):
        catalog.create_namespace_if_not_exists(name[:-1])
        claim(catalog.create_table(name, NUMBERS), [1000] * (10 + number))
    ids = [TableId("lake", name) for name in names]
    assert TableId.parse(str(ids[1])) == ids[1]
    measurer = IcebergMeasurer(catalog, "lake")
    assert [health.metrics["data_files"] for health in measurer.measure(ids, policy())] == [10, 11, 12, 13, 14]
    # a namespace with a dot is one within another: the catalog does not tell them apart
    assert measure(catalog, TableId("lake", ("deep.er", "t"))).metrics["data_files"] == 13


def test_a_table_of_another_backend_type_keeps_the_name_of_its_backend(catalog: SqlCatalog) -> None:
    claim(make_table(catalog, NUMBERS), [1000])
    health = IcebergMeasurer(catalog, "warehouse").measure([TableId("warehouse", ("ns", "t"))], policy())[0]
    assert (health.backend, str(health.table)) == ("warehouse", "warehouse.ns.t")


def _missing(catalog: SqlCatalog, table: Any) -> None:
    metadata_path(table).unlink()


def _garbage(catalog: SqlCatalog, table: Any) -> None:
    replace_metadata(catalog, table, b"<html>not found</html>")


def _another_json(catalog: SqlCatalog, table: Any) -> None:
    replace_metadata(catalog, table, b"[1, 2]")


def _half(catalog: SqlCatalog, table: Any) -> None:
    content = metadata_path(table).read_bytes()
    replace_metadata(catalog, table, content[: len(content) // 2])


def _half_compressed(catalog: SqlCatalog, table: Any) -> None:
    content = gzip.compress(metadata_path(table).read_bytes())
    replace_metadata(catalog, table, content[: len(content) // 2], ".gz.metadata.json")


def _empty(catalog: SqlCatalog, table: Any) -> None:
    replace_metadata(catalog, table, b"")


def _folder(catalog: SqlCatalog, table: Any) -> None:
    path = metadata_path(table)
    path.unlink()
    path.mkdir()


def _lost_snapshot(catalog: SqlCatalog, table: Any) -> None:
    edit_metadata(catalog, table, lambda metadata: metadata.update(snapshots=[]))


def _odd_number(catalog: SqlCatalog, table: Any) -> None:
    edit_metadata(
        catalog, table, lambda metadata: metadata["snapshots"][-1]["summary"].update({"total-data-files": "x"})
    )


def _no_manifest_list(catalog: SqlCatalog, table: Any) -> None:
    local(table.current_snapshot().manifest_list).unlink()


def _half_manifest_list(catalog: SqlCatalog, table: Any) -> None:
    path = local(table.current_snapshot().manifest_list)
    path.write_bytes(path.read_bytes()[:-20])


def _no_manifest(catalog: SqlCatalog, table: Any) -> None:
    local(table.current_snapshot().manifests(table.io)[0].manifest_path).unlink()


def _half_manifest(catalog: SqlCatalog, table: Any) -> None:
    path = local(table.current_snapshot().manifests(table.io)[0].manifest_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _data_as_manifest(catalog: SqlCatalog, table: Any) -> None:
    path = local(table.current_snapshot().manifests(table.io)[0].manifest_path)
    shutil.copy(metadata_path(table), path)


def _all_files(catalog: SqlCatalog, table: Any) -> None:
    shutil.rmtree(local(table.location()))


@pytest.mark.parametrize(
    "harm",
    [
        _missing,
        _garbage,
        _another_json,
        _half,
        _half_compressed,
        _empty,
        _folder,
        _lost_snapshot,
        _odd_number,
        _no_manifest_list,
        _half_manifest_list,
        _no_manifest,
        _half_manifest,
        _data_as_manifest,
        _all_files,
    ],
)
def test_a_broken_table_is_named_and_the_others_are_measured(
    catalog: SqlCatalog, harm: Callable[[SqlCatalog, Any], None]
) -> None:
    tables = [make_table(catalog, NUMBERS, name=f"ns.t{number}") for number in range(3)]
    for table in tables:
        claim(table, [1000] * 10)
    harm(catalog, tables[1])
    measurer = IcebergMeasurer(catalog, "lake")
    for _ in range(2):
        first, broken, last = measure(catalog, *tables, measurer=measurer)
        assert [health.metrics["excess_files"] for health in (first, last)] == [9, 9]
        assert broken.problem is not None
        assert (broken.problem.type, broken.problem.table) == ("corrupt-table", "lake.ns.t1")
        assert (broken.metrics, broken.state_token) == ({}, "unknown")


@pytest.mark.parametrize("harm", [_lost_snapshot, _no_manifest])
def test_what_was_wrong_is_not_kept_for_ever(catalog: SqlCatalog, harm: Callable[[SqlCatalog, Any], None]) -> None:
    """Rows are outside the garbage collector: an error in one, whose traceback leads back to it, would stay."""
    table = make_table(catalog, NUMBERS)
    claim(table, [1000] * 10)
    harm(catalog, table)
    measurer = IcebergMeasurer(catalog, "lake")
    before = _errors()
    for _ in range(3):
        assert measure(catalog, table, measurer=measurer).problem is not None
    assert _errors() == before


def _errors() -> int:
    gc.collect()
    return sum(isinstance(one, CorruptTableError) for one in gc.get_objects())


def test_a_table_that_is_not_there_and_one_that_goes(catalog: SqlCatalog) -> None:
    tables = [make_table(catalog, NUMBERS, name=f"ns.t{number}") for number in range(2)]
    for table in tables:
        claim(table, [1000] * 10)
    measurer = IcebergMeasurer(catalog, "lake")
    never = TableId("lake", ("ns", "never"))
    ids = [TableId("lake", table.name()) for table in tables]
    healths = measurer.measure([ids[0], never, ids[1]], policy())
    assert [health.problem.type if health.problem else None for health in healths] == [None, "table-not-found", None]
    catalog.drop_table("ns.t0")
    healths = measurer.measure(ids, policy())
    assert [health.problem.type if health.problem else None for health in healths] == ["table-not-found", None]


@pytest.mark.parametrize("what", ["commit", "drop"])
def test_a_commit_between_the_query_and_the_read_is_followed(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [1000] * 10)
    read = Files.read

    def late(self: Files, location: str) -> bytes:
        monkeypatch.setattr(Files, "read", read)
        if what == "commit":
            claim(table, [1000] * 10)
        else:
            catalog.drop_table("ns.t")
        local(location).unlink()
        return read(self, location)

    monkeypatch.setattr(Files, "read", late)
    health = measure(catalog, table)
    if what == "commit":
        assert health.metrics["data_files"] == 20
    else:
        assert health.problem is not None
        assert health.problem.type == "table-not-found"


def test_manifests_that_a_commit_removes_while_they_are_read_are_no_problem(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [1000] * 10)
    read = Files.read

    def late(self: Files, location: str) -> bytes:
        if location.endswith("-m0.avro"):
            monkeypatch.setattr(Files, "read", read)
            claim(table, [1000] * 10)
            local(location).rename(local(location).with_suffix(".gone"))
        return read(self, location)

    monkeypatch.setattr(Files, "read", late)
    measurer = IcebergMeasurer(catalog, "lake")
    health = measure(catalog, table, measurer=measurer)
    assert (health.problem, health.metrics["exact"], health.metrics["excess_files"]) == (None, 0, 9)


def test_a_catalog_that_does_not_answer_is_an_error_of_the_whole_call(catalog: SqlCatalog, tmp_path: Path) -> None:
    table = make_table(catalog, NUMBERS)
    measurer = IcebergMeasurer(catalog, "lake")
    measure(catalog, table, measurer=measurer)
    catalog.engine.dispose()
    (tmp_path / "catalog.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(BackendUnavailableError, match="no such table"):
        measure(catalog, table, measurer=measurer)


def test_two_catalogs_side_by_side_in_threads(tmp_path: Path) -> None:
    with sql_catalog(tmp_path / "one") as one, sql_catalog(tmp_path / "two") as two:
        for catalog, size in ((one, 1000), (two, 120 * MIB)):
            for number in range(8):
                claim(make_table(catalog, NUMBERS, name=f"ns.t{number}"), [size] * (6 + number))
        ids = [TableId("lake", ("ns", f"t{number}")) for number in range(8)]
        measurers = [IcebergMeasurer(one, "lake"), IcebergMeasurer(two, "lake")]
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda turn: measurers[turn % 2].measure(ids, policy()), range(12)))
        for turn, healths in enumerate(results):
            excess = [health.metrics["excess_files"] for health in healths]
            assert excess == ([0] * 8 if turn % 2 else [5 + number for number in range(8)])


def test_a_policy_of_its_own_for_each_table(catalog: SqlCatalog) -> None:
    tables = [make_table(catalog, NUMBERS, name=f"ns.t{number}") for number in range(2)]
    for table in tables:
        claim(table, [10 * MIB] * 20)
    rules = [policy(target_file_size_mb=100), policy(target_file_size_mb=10)]
    ids = [TableId("lake", table.name()) for table in tables]
    healths = IcebergMeasurer(catalog, "lake").measure(
        ids, lambda table, operation: rules[ids.index(table)](table, operation)
    )
    assert [health.metrics["excess_files"] for health in healths] == [18, 0]


def test_measuring_writes_nothing(catalog: SqlCatalog, tmp_path: Path) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [1000] * 10)

    def listing() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()}

    before = listing()
    measure(catalog, table)
    assert listing() == before
    assert orjson.dumps(metadata_json(table))
