"""Every table of the fleet as an external asset: somebody else writes it, Dagster shows how it is.

Made from the last discovery alone, so that the code location loads with every backend down.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from aurum_orchestration.dagster_edge.naming import BACKEND_TAG, group_name, tag_value
from aurum_orchestration.maintenance.interfaces import DiscoveredTable

if TYPE_CHECKING:
    from aurum_orchestration.fleet import Fleet

KINDS = {"iceberg": {"iceberg", "parquet"}, "timescale": {"timescaledb", "postgres"}}
"""Kinds of a backend type's tables where they are not just the type; Dagster has icons for many of them."""

MOST_COLUMNS = 100_000
"""Columns of all tables together that are shown: each takes 225 bytes of the 100 MB that a code server may send."""

_TAG_KEY = re.compile(r"([\w.-]{1,63}/)?[\w.-]{1,63}", re.ASCII)
_log = logging.getLogger(__name__)


def table_specs(fleet: Fleet) -> list[dg.AssetSpec]:
    """One spec per table known from the last discovery; a warning in the log when none is known."""
    specs: dict[dg.AssetKey, dg.AssetSpec] = {}
    tables = fleet.tables()
    with_columns = sum(len(table.columns) for table in tables) <= MOST_COLUMNS
    if not with_columns:
        _log.info("The tables have more than %d columns together: their assets show none.", MOST_COLUMNS)
    for table in tables:
        spec = _spec(fleet, table, with_columns)
        if spec.key in specs:
            _log.warning("%s has the asset key of another table, %s; it is not shown", table.table, spec.key)
        else:
            specs[spec.key] = spec
    if not tables:
        _log.warning(
            "No table is known yet, so there are no table assets. Run the job health, or the command aurum discover, "
            "with the backends up; then reload this code location."
        )
    return list(specs.values())


def _spec(fleet: Fleet, found: DiscoveredTable, with_columns: bool) -> dg.AssetSpec:
    table = found.table
    backend = fleet.backends[table.backend]
    metadata: dict[str, Any] = {"dagster/table_name": ".".join(table.parts), "aurum/table": str(table)}
    if found.location:
        metadata["dagster/uri"] = found.location
    if found.columns and with_columns:
        metadata["dagster/column_schema"] = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in found.columns])
    return dg.AssetSpec(
        key=dg.AssetKey(list(fleet.asset_key(table))),
        description=fleet.description(table) or found.comment or f"{table.name}, a table of {table.backend}.",
        group_name=group_name(table),
        kinds=KINDS.get(backend.type, {backend.type}),
        owners=fleet.owners(table),
        tags=dict(_tags(fleet, found)),
        metadata=metadata,
    )


def _tags(fleet: Fleet, found: DiscoveredTable) -> Iterator[tuple[str, str]]:
    yield BACKEND_TAG, tag_value(found.table.backend)
    for key, value in fleet.tags(found.table).items():
        if _TAG_KEY.fullmatch(key):
            yield key, tag_value(value)
        else:
            _log.warning("%s: Dagster takes no tag named %r; it is left out", found.table, key)
