"""The demo's lake: real rows, written as a stream would, counted and compared by another reader."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.snapshots import Operation
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import NestedField, StringType, TimestamptzType

from aurum_orchestration.errors import MissingExtraError
from aurum_orchestration.local import nyc2013
from aurum_orchestration.local.lake import NAMESPACE, RECIPES, create_lake, fill_lake
from aurum_orchestration.local.proof import contents
from aurum_orchestration.local.questions import QUESTIONS, Question, Scan, ask
from aurum_orchestration.local.streaming import Stream, replay

DAYS = 20
END = datetime(2013, 1, 1 + DAYS, tzinfo=UTC)
Told = list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SqlCatalog, Told]]:
    told: Told = []
    catalog = catalog_in(tmp_path_factory.mktemp("lake"))
    create_lake(catalog)
    fill_lake(catalog, days=DAYS, progress=lambda *step: told.append(step))
    yield catalog, told
    catalog.close()


@pytest.fixture
def lake(built: tuple[SqlCatalog, Told]) -> SqlCatalog:
    return built[0]


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[SqlCatalog]:
    catalog = catalog_in(tmp_path)
    catalog.create_namespace(NAMESPACE)
    yield catalog
    catalog.close()


def catalog_in(folder: Path) -> SqlCatalog:
    return SqlCatalog("lake", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")


def source_rows(name: str) -> pa.Table:
    recipe = RECIPES[name]
    rows = nyc2013.load(recipe.source).select(list(recipe.columns or nyc2013.SCHEMAS[recipe.source].column_names))
    return rows.filter(pc.less(rows["time_hour"], END)) if "time_hour" in rows.column_names else rows


def test_the_source_has_the_rows_it_is_known_for() -> None:
    assert {name: nyc2013.load(name).num_rows for name in nyc2013.SCHEMAS} == {
        "flights": 336_776,
        "weather": 26_115,
        "airlines": 16,
        "airports": 1_458,
        "planes": 3_322,
    }


def test_na_of_the_source_is_null_and_types_are_kept() -> None:
    flights = nyc2013.load("flights")
    assert flights["dep_delay"].null_count == 8_255
    assert flights["tailnum"].null_count == 2_512
    assert flights.schema.field("time_hour").type == pa.timestamp("us", tz="UTC")


def test_a_missing_data_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nyc2013, "PACKAGE", "nycflights1913")
    with pytest.raises(MissingExtraError, match="nycflights1913 is not installed") as raised:
        nyc2013.load("planes")
    assert "make setup" in str(raised.value.hint)


@pytest.mark.parametrize("name", RECIPES)
def test_every_row_of_the_source_is_in_its_table(lake: SqlCatalog, name: str) -> None:
    expected = source_rows(name)
    stored = lake.load_table((NAMESPACE, name)).scan().to_arrow().select(expected.column_names).cast(expected.schema)
    order = [(column, "ascending") for column in expected.column_names]
    assert stored.sort_by(order).equals(expected.sort_by(order))


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.stream])
def test_a_stream_leaves_a_file_for_each_short_while_and_some_files_to_a_commit(lake: SqlCatalog, name: str) -> None:
    stream = RECIPES[name].stream
    assert stream is not None
    hours = (int(hour.timestamp()) // 3600 for hour in source_rows(name)["time_hour"].to_pylist())
    windows = {hour // stream.hours_per_file for hour in hours}
    table = lake.load_table((NAMESPACE, name))
    assert contents(lake, name).files == len(windows)
    assert len(table.snapshots()) == -(-len(windows) // stream.files_per_commit)
    assert {snapshot.summary.operation for snapshot in table.snapshots() if snapshot.summary} == {Operation.APPEND}


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if not recipe.stream])
def test_a_batch_leaves_one_file_a_partition(lake: SqlCatalog, name: str) -> None:
    assert contents(lake, name).files == 1


def test_files_carry_field_ids_and_bounds(lake: SqlCatalog) -> None:
    table = lake.load_table((NAMESPACE, "flights"))
    file = next(iter(table.scan().plan_files())).file
    ids = [field.metadata[b"PARQUET:field_id"] for field in pq.read_schema(file.file_path.removeprefix("file://"))]
    assert ids == [str(field.field_id).encode() for field in table.schema().fields]
    assert set(file.lower_bounds) == {field.field_id for field in table.schema().fields}
    assert "time_hour_month=2013-01" in file.file_path


def test_progress_counts_every_row_of_every_table(built: tuple[SqlCatalog, Told]) -> None:
    _, told = built
    for name in RECIPES:
        done = [rows for table, rows, _ in told if table == name]
        total = source_rows(name).num_rows
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, total)
        assert {all_rows for table, _, all_rows in told if table == name} == {total}


def test_a_stream_into_several_partitions_splits_by_their_value(empty: SqlCatalog) -> None:
    schema = Schema(
        NestedField(1, "at", TimestamptzType(), required=False), NestedField(2, "kind", StringType(), required=False)
    )
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "kind"))
    table = empty.create_table((NAMESPACE, "events"), schema=schema, partition_spec=spec)
    hours = [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in (2, 0, 1)]
    rows = pa.table({"at": pa.array(hours, pa.timestamp("us", tz="UTC")), "kind": ["b", "a", None]})
    replay(table, rows, Stream("at", hours_per_file=1, files_per_commit=2))
    found = {task.file.partition[0]: task.file.record_count for task in table.refresh().scan().plan_files()}
    assert found == {"a": 1, "b": 1, None: 1}


@pytest.mark.parametrize(
    "change",
    [
        {"carrier": ["AA", "B6", "DL"]},
        {"name": ["American", "JetBlue", None]},
        {"carrier": ["AA", "B6"], "name": ["American", "JetBlue"]},
        {"carrier": ["AA", "B6", "UA", "UA"], "name": ["American", "JetBlue", "United", "United"]},
        {"name": ["JetBlue", "American", "United"]},
    ],
    ids=["a value", "a null", "a row less", "a row twice", "values swapped between rows"],
)
def test_the_proof_notices_a_change_and_nothing_else(empty: SqlCatalog, change: dict[str, list[str | None]]) -> None:
    original = {"carrier": ["AA", "B6", "UA"], "name": ["American", "JetBlue", "United"]}
    for name, columns in {"original": original, "changed": {**original, **change}}.items():
        empty.create_table((NAMESPACE, name), schema=nyc2013.SCHEMAS["airlines"]).append(pa.table(columns))
    rearranged = empty.create_table((NAMESPACE, "rearranged"), schema=nyc2013.SCHEMAS["airlines"])
    for row in (2, 0, 1):
        rearranged.append(pa.table(original).slice(row, 1))

    before = contents(empty, "original")
    assert not before.same_rows(contents(empty, "changed"))
    assert before.same_rows(contents(empty, "rearranged"))
    assert contents(empty, "rearranged").files == 3


def test_a_question_is_answered_from_what_it_scans(empty: SqlCatalog) -> None:
    rows = pa.table({"carrier": ["AA", "B6", "UA"], "name": ["American", "JetBlue", "United"]})
    empty.create_table((NAMESPACE, "airlines"), schema=nyc2013.SCHEMAS["airlines"]).append(rows)
    question = Question(
        "Who?",
        {"airlines": Scan(("name",), "carrier > 'AA'")},
        "SELECT string_agg(name, '+' ORDER BY name) FROM airlines",
    )
    answer = ask(empty, question)
    assert (answer.question, answer.text) == ("Who?", "JetBlue+United")
    assert answer.seconds > 0


def test_the_demos_questions_have_the_answers_of_the_source(lake: SqlCatalog) -> None:
    """DuckDB over the source's rows, without Iceberg, must say the same."""
    import duckdb

    for question in QUESTIONS[1:]:
        with duckdb.connect() as connection:
            for name in question.scans:
                connection.register(name, source_rows(name))
            [(expected,)] = connection.execute(question.sql).fetchall()
        assert " min" in expected
        assert ask(lake, question).text == expected
