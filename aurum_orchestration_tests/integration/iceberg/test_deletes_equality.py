"""Compaction of tables with equality deletes, judged row by row by the words of the format."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import (
    BinaryType,
    DateType,
    DecimalType,
    DoubleType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    StructType,
    UUIDType,
)

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.compact import equality
from aurum_orchestration.maintenance.backends.iceberg.compact.deletes import DeleteIndex, NamedPaths
from aurum_orchestration.maintenance.backends.iceberg.compact.equality import DeletedKeys
from aurum_orchestration.maintenance.backends.iceberg.compact.state import read_state
from aurum_orchestration.maintenance.backends.iceberg.entries import EntryReader
from aurum_orchestration_tests.iceberg_deletes import add_equality_deletes, add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.iceberg.merged import delete_paths, entries, live_rows, upsert
from aurum_orchestration_tests.integration.iceberg.support import (
    Interfering,
    append,
    append_numbers,
    by_duckdb,
    carry_out,
    compact,
    fields,
    make_table,
    open_plan,
    plan_of,
    spec_of,
    sql_catalog,
    stored_files,
    typed,
)

KEYED = fields(id=LongType(), name=StringType(), region=StringType())
BY_REGION = spec_of((3, IdentityTransform(), "region"))


def keyed(catalog: SqlCatalog, **options: Any) -> Table:
    """Six rows in three files, one name null, in one region."""
    table = make_table(catalog, KEYED, **options)
    names = ["a", "b", None, "c", "a", "d"]
    append(
        table,
        *({"id": [at, at + 1], "name": names[at : at + 2], "region": ["N", "N"]} for at in range(0, 6, 2)),
    )
    return table


def names(*values: str | None) -> pa.Table:
    return pa.table({"name": pa.array(values, pa.string())})


def summary(table: Table) -> dict[str, str]:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    return snapshot.summary.additional_properties


def left(table: Table) -> list[int]:
    """The ids in the live data files, by DuckDB; there are no delete files."""
    assert delete_paths(table) == set()
    return sorted(int(row.split(":")[1].split(",")[0]) for row, count in by_duckdb(table).items() for _ in range(count))


def test_keys_match_null_with_null_and_the_delete_files_go(catalog: SqlCatalog) -> None:
    table = keyed(catalog)
    add_equality_deletes(table, names("a", None, "nobody"), ["name"])
    expected = live_rows(table)
    done = compact(table)
    assert left(table) == [1, 3, 5]
    assert live_rows(table) == expected
    assert (done.metrics["deleted_rows_folded"], done.metrics["delete_files_removed"]) == (3, 1)
    assert (done.tally.verifications[0].rows_before, done.tally.verifications[0].ok) == (3, True)
    told = summary(table)
    assert (told["removed-equality-delete-files"], told["removed-equality-deletes"]) == ("1", "3")
    assert (told["total-equality-deletes"], told["total-delete-files"], told["total-records"]) == ("0", "0", "3")


def test_a_null_does_not_match_a_value(catalog: SqlCatalog) -> None:
    table = keyed(catalog)
    add_equality_deletes(table, names("", "0"), ["name"])
    compact(table)
    assert left(table) == list(range(6))


def test_rows_written_with_or_after_a_delete_stay(catalog: SqlCatalog) -> None:
    table = keyed(catalog)
    upsert(table, [{"id": 10, "name": "a", "region": "N"}], ["name"])
    append(table, {"id": [11], "name": ["a"], "region": ["N"]})
    (first,) = delete_paths(table)
    upsert(table, [{"id": 12, "name": "b", "region": "N"}], ["name"])
    expected = live_rows(table)
    # the files written with or after the first delete do not have it among theirs
    state = read_state(table, EntryReader(table.io))
    index = DeleteIndex(state.deletes, table.metadata.specs(), NamedPaths(table.io))
    newer = [delete for item in state.data if (item.sequence_number or 0) > 1 for delete in index.of(item)]
    assert first not in {item.data_file.file_path for item in newer}
    compact(table)
    assert left(table) == [2, 3, 5, 10, 11, 12]
    assert live_rows(table) == expected


def test_several_sets_of_columns_and_positions_together(catalog: SqlCatalog) -> None:
    table = keyed(catalog)
    add_equality_deletes(table, pa.table({"id": [0, 3], "name": ["x", "c"]}), ["id", "name"])
    add_equality_deletes(table, pa.table({"id": [5]}), ["id"])
    first = live_data_files(table)[0].file_path
    add_position_deletes(table, {first: [0]})
    expected = live_rows(table)
    done = compact(table)
    assert live_rows(table) == expected
    assert (delete_paths(table), expected.total(), done.metrics["deleted_rows_folded"]) == (set(), 3, 3)


def test_a_delete_counts_in_its_own_partition_only(catalog: SqlCatalog) -> None:
    table = make_table(catalog, KEYED, spec=BY_REGION)
    for region in ("N", "S"):
        for at in range(3):
            append(table, {"id": [at], "name": ["a"], "region": [region]})
    add_equality_deletes(table, names("a"), ["name"], partition=Record("N"))
    expected = live_rows(table)
    compact(table)
    assert live_rows(table) == expected
    assert (expected.total(), delete_paths(table)) == (3, set())


def test_a_delete_without_partition_counts_everywhere_and_stays_while_a_file_is_left(catalog: SqlCatalog) -> None:
    table = keyed(catalog)
    with table.update_spec() as change:
        change.add_identity("region")
    append(table, {"id": [20, 21], "name": ["a", "z"], "region": ["W", "W"]})
    with table.update_spec() as change:
        change.remove_field("region")
    add_equality_deletes(table, names("a"), ["name"])
    expected = live_rows(table)
    assert expected.total() == 8 - 3
    done = compact(table, max_deleted_ratio=1)
    assert live_rows(table) == expected
    assert (len(delete_paths(table)), done.metrics["deleted_rows_folded"]) == (1, 2)
    # the file of the other spec needs it until it is rewritten too
    compact(table, old_specs="all")
    assert live_rows(table) == expected
    assert not delete_paths(table)


def test_a_column_promoted_since_and_one_that_older_files_lack(catalog: SqlCatalog) -> None:
    table = make_table(catalog, fields(id=IntegerType(), name=StringType()))
    append(table, {"id": [1, 2], "name": ["a", "b"]}, {"id": [3], "name": ["c"]})
    add_equality_deletes(table, pa.table({"id": pa.array([2], pa.int32())}), ["id"])
    with table.update_schema() as change:
        change.update_column("id", LongType())
        change.add_column("extra", StringType())
    append(table, {"id": [1, 2**40], "name": ["d", "e"], "extra": ["x", None]})
    add_equality_deletes(table, pa.table({"id": [1], "extra": pa.array([None], pa.string())}), ["id", "extra"])
    expected = live_rows(table)
    compact(table)
    assert live_rows(table) == expected
    assert sorted(expected) == sorted(
        repr(row)
        for row in (
            {"id": 3, "name": "c", "extra": None},
            {"id": 1, "name": "d", "extra": "x"},
            {"id": 2**40, "name": "e", "extra": None},
        )
    )
    assert delete_paths(table) == set()


def test_a_key_column_dropped_since_still_counts(catalog: SqlCatalog) -> None:
    table = keyed(catalog)
    add_equality_deletes(table, names("a"), ["name"])
    with table.update_schema() as change:
        change.delete_column("name")
    compact(table)
    assert left(table) == [1, 2, 3, 5]


def test_a_key_inside_a_struct(catalog: SqlCatalog) -> None:
    schema = fields(id=LongType(), s=StructType(NestedField(10, "k", StringType(), required=False)))
    table = make_table(catalog, schema)
    append(
        table,
        [{"id": 0, "s": {"k": "a"}}, {"id": 1, "s": {"k": None}}],
        [{"id": 2, "s": None}, {"id": 3, "s": {"k": "b"}}],
    )
    keys = pa.table({"s": pa.array([{"k": "a"}, {"k": None}], pa.struct([("k", pa.string())]))})
    add_equality_deletes(table, keys, ["s"], ids=[table.schema().find_field("s.k").field_id])
    compact(table)
    assert left(table) == [3]  # in a null struct every field is null


KEYS: list[tuple[Any, list[Any]]] = [
    (IntegerType(), [0, 1, -1, 2**31 - 1]),
    (LongType(), [0, 1, -1, 2**63 - 1]),
    (DecimalType(10, 2), ["0.00", "1.10", "-1.10"]),
    (DateType(), [0, 1, -40_000]),
    (StringType(), ["", "a", "ä", "a" * 40]),
    (BinaryType(), [b"", b"\0", b"a"]),
    (UUIDType(), [b"a" * 16, b"b" * 16]),
]


@pytest.mark.parametrize(("kind", "values"), KEYS, ids=[str(kind) for kind, _ in KEYS])
def test_keys_of_every_type(catalog: SqlCatalog, kind: Any, values: list[Any]) -> None:
    table = make_table(catalog, fields(k=kind, id=LongType()))
    made = [Decimal(value) if isinstance(kind, DecimalType) else value for value in values]
    append(table, {"k": [*made, None], "id": range(len(made) + 1)}, {"k": [*made, None], "id": range(len(made) + 1)})
    target = table.scan().to_arrow().schema.field("k").type
    deleted = pa.array([made[0], None], target.storage_type if isinstance(target, pa.BaseExtensionType) else target)
    add_equality_deletes(table, pa.table({"k": deleted}), ["k"])
    compact(table)
    rows = [row for row, count in by_duckdb(table).items() for _ in range(count)]
    assert sorted(int(row.rsplit(":", 1)[1].rstrip("}")) for row in rows) == sorted([*range(1, len(made))] * 2)


def test_keys_in_several_chunks(catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equality, "KEYS_AT_ONCE", 3)
    monkeypatch.setattr(equality, "BATCH_ROWS", 2)
    table = make_table(catalog, KEYED)
    append_numbers(table, files=3, rows=10, name="a", region="N")
    add_equality_deletes(table, pa.table({"id": range(0, 30, 3)}), ["id"])
    compact(table)
    assert left(table) == [at for at in range(30) if at % 3]


def test_a_hash_alone_deletes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equality, "row_hashes", lambda rows: np.zeros(rows.num_rows, np.uint64))
    keys = pa.table({"0": [1, 2, None, 2, 7]})
    chunk = DeletedKeys(keys, np.array([5, 3, 5, 9, 1]))
    rows = pa.table({"0": [1, 2, 3, None, 7]})
    assert chunk.match(rows, 4).tolist() == [True, True, False, True, False]
    assert chunk.match(rows, 6).tolist() == [False, True, False, False, False]


# --- at the commit


def test_a_concurrent_equality_delete_applies_to_the_new_files(catalog: SqlCatalog) -> None:
    table = keyed(catalog)
    add_equality_deletes(table, names("a"), ["name"])

    def meanwhile(_: Any) -> None:
        upsert(table, [{"id": 10, "name": "b", "region": "N"}], ["name"])
        append(table, {"id": [11], "name": ["b"], "region": ["N"]})

    carry_out(Interfering(open_plan(plan_of(table), table), meanwhile))
    table.refresh()
    # the old delete is folded in and gone, the new one stays and takes out row 1, which was rewritten
    assert len(delete_paths(table)) == 1
    rows = live_rows(table)
    assert sorted(int(row.split(":")[1].split(",")[0]) for row in rows) == [2, 3, 5, 10, 11]
    # the rewritten file counts as old as the snapshot it was read at
    numbers = [item.sequence_number for item in entries(table, ManifestContent.DATA)]
    assert min(number or 0 for number in numbers) == 2
    compact(table)
    assert left(table) == [2, 3, 5, 10, 11]


# --- refused


def test_keys_that_the_format_forbids_are_refused(catalog: SqlCatalog) -> None:
    table = make_table(catalog, fields(x=DoubleType()))
    append(table, {"x": [1.0]}, {"x": [2.0]})
    add_equality_deletes(table, pa.table({"x": [1.0]}), ["x"])
    before = stored_files(table)
    with pytest.raises(UnsupportedError, match="'x', a double"):
        compact(table)
    assert stored_files(table) == before


# --- anything


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), partitioned=st.booleans(), strategy=st.sampled_from(["binpack", "sort"]))
def test_any_sequence_of_writes_deletes_and_compactions(
    tmp_path_factory: pytest.TempPathFactory, seed: int, partitioned: bool, strategy: str
) -> None:
    chance = random.Random(seed)
    with sql_catalog(tmp_path_factory.mktemp("lake")) as catalog:
        table = make_table(catalog, KEYED, spec=BY_REGION) if partitioned else make_table(catalog, KEYED)
        for _ in range(chance.randint(3, 9)):
            region = chance.choice("NS")
            partition = Record(region) if partitioned else None
            rows: list[dict[str, object]] = [
                {"id": chance.randint(0, 9), "name": chance.choice([None, "a", "b"]), "region": region}
                for _ in range(chance.randint(1, 6))
            ]
            keys = chance.choice([["id"], ["name"], ["id", "name"]])
            what = chance.choice(["append", "append", "upsert", "equality", "positions", "compact"])
            live = live_data_files(table)
            if what == "upsert":
                upsert(table, rows, keys, partition)
            elif what == "equality" and live:
                add_equality_deletes(table, typed(table, rows), keys, partition=partition)
            elif what == "positions" and live:
                chosen = chance.sample(live, min(len(live), 2))
                add_position_deletes(
                    table,
                    {file.file_path: [chance.randrange(file.record_count)] for file in chosen},
                    file_scoped=chance.random() < 0.5,
                )
            elif what == "compact" and live:
                expected = live_rows(table)
                compact(table, strategy=strategy, sort_columns="name, id", max_deleted_ratio=chance.choice([0.1, 0.9]))
                assert live_rows(table) == expected
            else:
                append(table, rows)
        if live_data_files(table):
            expected = live_rows(table)
            compact(table, max_delete_files=1)
            assert live_rows(table) == expected
            assert delete_paths(table) == set()
            assert int(summary(table)["total-records"]) == expected.total()
            assert plan_of(table, max_delete_files=1).steps == []
