"""Builds the demo's lake: tables that a stream has worn out beside tables that a batch job wrote well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pyiceberg.catalog import Catalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.transforms import MonthTransform

from aurum_orchestration.local import nyc2013
from aurum_orchestration.local.streaming import Stream, replay

if TYPE_CHECKING:
    import pyarrow as pa

NAMESPACE = "flights"
TIME = "time_hour"
WHOLE_YEAR = 366
"""Days from 1 January 2013 in New York to the last departure in universal time."""

Progress = Callable[[str, int, int], None]
"""Called with a table's name, the rows written so far and the rows there will be."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one table of the lake comes about. Without ``stream`` it is written at once, as a batch job does."""

    comment: str
    source: str
    columns: tuple[str, ...] | None = None
    by_month: bool = False
    stream: Stream | None = None


RECIPES: Mapping[str, Recipe] = {
    "flights": Recipe(
        "Every departure from New York in 2013, as a stream wrote it: a file for two hours.",
        source="flights",
        by_month=True,
        stream=Stream(TIME, hours_per_file=2, files_per_commit=40),
    ),
    "weather": Recipe(
        "Hourly weather at the three airports, as a stream wrote it: a file for six hours.",
        source="weather",
        stream=Stream(TIME, hours_per_file=6, files_per_commit=28),
    ),
    "schedule": Recipe(
        "What was planned for every departure, as a nightly batch wrote it: a file for a month.",
        source="flights",
        columns=(TIME, "sched_dep_time", "sched_arr_time", "carrier", "flight", "tailnum", "origin", "dest"),
        by_month=True,
    ),
    "airlines": Recipe("Names of the carriers.", source="airlines"),
    "airports": Recipe("Airports by FAA code.", source="airports"),
    "planes": Recipe("Planes by tail number.", source="planes"),
}


def create_lake(catalog: Catalog) -> None:
    """Create every table of :data:`RECIPES`, empty, in the namespace ``flights`` of an empty catalog."""
    catalog.create_namespace_if_not_exists(NAMESPACE)
    for name, recipe in RECIPES.items():
        _create(catalog, name, recipe)


def fill_lake(
    catalog: Catalog, *, days: int = WHOLE_YEAR, progress: Progress = lambda _table, _done, _total: None
) -> None:
    """Write the rows of every table. Fewer ``days`` (from 1 January 2013) make a smaller lake of the same shape."""
    sources = {source: _first(days, nyc2013.load(source)) for source in {one.source for one in RECIPES.values()}}
    for name, recipe in RECIPES.items():
        rows = sources[recipe.source]
        if recipe.columns:
            rows = rows.select(list(recipe.columns))
        _fill(catalog.load_table((NAMESPACE, name)), name, recipe, rows, progress)


def _first(days: int, rows: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    if TIME not in rows.column_names:
        return rows
    return rows.filter(pc.less(rows[TIME], datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=days)))


def _create(catalog: Catalog, name: str, recipe: Recipe) -> None:
    schema = nyc2013.SCHEMAS[recipe.source]
    if recipe.columns:
        schema = schema.select(*recipe.columns)
    spec = PartitionSpec()
    if recipe.by_month:
        source = schema.find_field(TIME)
        spec = PartitionSpec(PartitionField(source.field_id, 1000, MonthTransform(), f"{TIME}_month"))
    catalog.create_table((NAMESPACE, name), schema=schema, partition_spec=spec, properties={"comment": recipe.comment})


def _fill(table: Table, name: str, recipe: Recipe, rows: pa.Table, progress: Progress) -> None:
    written = 0

    def committed(count: int) -> None:
        nonlocal written
        written += count
        progress(name, written, rows.num_rows)

    progress(name, 0, rows.num_rows)
    if recipe.stream:
        replay(table, rows, recipe.stream, committed)
    else:
        table.append(rows)
        committed(rows.num_rows)
