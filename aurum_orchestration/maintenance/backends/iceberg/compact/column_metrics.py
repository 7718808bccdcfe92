"""Which metrics of which columns a manifest gets: as the table's properties say, fields inside structs included.

PyIceberg leaves out the bounds of every nested field. Apache Iceberg leaves out only those inside lists and maps,
where bounds say nothing of a row, and readers skip files by the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from pyiceberg.io.pyarrow import (
    MetricModeTypes,
    MetricsMode,
    StatisticsCollector,
    compute_statistics_plan,
    match_metrics_mode,
)
from pyiceberg.schema import Schema
from pyiceberg.table import TableProperties
from pyiceberg.types import BinaryType, StringType, StructType


def metrics_plan(schema: Schema, properties: Mapping[str, str]) -> dict[int, StatisticsCollector]:
    """What to collect, by field id."""
    plan = compute_statistics_plan(schema, dict(properties))
    for identity in _in_structs(schema.as_struct()):
        if (collector := plan.get(identity)) is not None and "." in collector.column_name:
            plan[identity] = dataclasses.replace(collector, mode=_mode(collector, properties))
    return plan


def _in_structs(struct: StructType) -> Iterator[int]:
    """Ids of the plain fields of a struct and of the structs inside it."""
    for field in struct.fields:
        if isinstance(field.field_type, StructType):
            yield from _in_structs(field.field_type)
        elif field.field_type.is_primitive:
            yield field.field_id


def _mode(collector: StatisticsCollector, properties: Mapping[str, str]) -> MetricsMode:
    default = properties.get(
        TableProperties.DEFAULT_WRITE_METRICS_MODE, TableProperties.DEFAULT_WRITE_METRICS_MODE_DEFAULT
    )
    own = properties.get(f"{TableProperties.METRICS_MODE_COLUMN_CONF_PREFIX}.{collector.column_name}")
    mode = match_metrics_mode(own or default)
    text = isinstance(collector.iceberg_type, StringType | BinaryType)
    return MetricsMode(MetricModeTypes.FULL) if mode.type == MetricModeTypes.TRUNCATE and not text else mode
