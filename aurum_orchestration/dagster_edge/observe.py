"""A table's numbers as an observation of its asset: a point in each of its plots.

Never a materialization and never a data version: both would start pipelines downstream of the table,
whose rows did not change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from aurum_orchestration.maintenance.interfaces import Decision, MaintenanceResult, TableHealth
from aurum_orchestration.maintenance.metrics import METRICS

if TYPE_CHECKING:
    from aurum_orchestration.fleet.fleet import Fleet


PLOTTED = frozenset(
    {
        *("data_files", "data_bytes", "rows", "excess_files", "delete_files", "snapshots"),
        *("files_rewritten", "files_deleted", "files_quarantined", "bytes_rewritten", "bytes_deleted"),
        *("rows_deleted", "snapshots_expired", "manifests_rewritten"),
        *("dead_tuples", "table_bytes", "table_bloat_bytes", "index_bytes", "index_bloat_bytes", "database_bytes"),
    }
)
"""Of the numbers of the catalogue those that are plotted: an event has 150 bytes for each. What it does not
know, a user's own, is plotted too. All of them are in the history store."""


def observation(
    fleet: Fleet,
    health: TableHealth,
    debt_score: float,
    decisions: Sequence[Decision] = (),
    result: MaintenanceResult | None = None,
) -> dg.AssetObservation:
    """The observation of a measured table, and of the operation it was measured after if there was one.

    Metadata keys are the metric names (docs/metrics.md) and ``debt_score``; an operation's own numbers
    follow as ``<operation>/<metric>``, so that a plot never mixes two meanings. Only those of :data:`PLOTTED`.
    """
    metadata: dict[str, dg.MetadataValue] = {"debt_score": dg.MetadataValue.float(float(debt_score))}
    metadata.update(numbers({name: value for name, value in health.metrics.items() if _plotted(name)}))
    if decisions and decisions[0].act:
        metadata["needs"] = dg.MetadataValue.text(f"{decisions[0].operation}: {decisions[0].reason}")
    if result is not None:
        operation = str(result.config.operation_type)
        own = {f"{operation}/{name}": value for name, value in result.metrics.items() if value and _plotted(name)}
        metadata.update(numbers(own))
        metadata[f"{operation}/seconds"] = dg.MetadataValue.float(round(result.seconds, 3))
    return dg.AssetObservation(
        asset_key=dg.AssetKey(list(fleet.asset_key(health.table))),
        description=f"{result.reason} (operation {result.operation_id})" if result is not None else None,
        metadata=metadata,
    )


def _plotted(metric: str) -> bool:
    return metric in PLOTTED or metric not in METRICS


def numbers(metrics: Mapping[str, float]) -> dict[str, dg.MetadataValue]:
    """Metrics as numeric metadata: whole numbers as integers; what is no number is left out."""
    return {
        name: dg.MetadataValue.int(int(value)) if float(value).is_integer() else dg.MetadataValue.float(float(value))
        for name, value in metrics.items()
        if math.isfinite(value)
    }
