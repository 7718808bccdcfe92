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

if TYPE_CHECKING:
    from aurum_orchestration.fleet.fleet import Fleet


def observation(
    fleet: Fleet,
    health: TableHealth,
    debt_score: float,
    decisions: Sequence[Decision] = (),
    result: MaintenanceResult | None = None,
) -> dg.AssetObservation:
    """The observation of a measured table, and of the operation it was measured after if there was one.

    Metadata keys are the metric names (docs/metrics.md) and ``debt_score``; an operation's own numbers
    follow as ``<operation>/<metric>``, so that a plot never mixes two meanings.
    """
    metadata: dict[str, dg.MetadataValue] = {"debt_score": dg.MetadataValue.float(float(debt_score))}
    metadata.update(numbers(health.metrics))
    if decisions:
        metadata["needs"] = dg.MetadataValue.text(f"{decisions[0].operation}: {decisions[0].reason}")
    if result is not None:
        operation = str(result.config.operation_type)
        metadata.update(numbers({f"{operation}/{name}": value for name, value in result.metrics.items()}))
        metadata[f"{operation}/seconds"] = dg.MetadataValue.float(round(result.seconds, 3))
        metadata[f"{operation}/operation_id"] = dg.MetadataValue.text(result.operation_id)
    return dg.AssetObservation(
        asset_key=dg.AssetKey(list(fleet.asset_key(health.table))),
        description=result.reason if result is not None else None,
        metadata=metadata,
    )


def numbers(metrics: Mapping[str, float]) -> dict[str, dg.MetadataValue]:
    """Metrics as numeric metadata: whole numbers as integers; what is no number is left out."""
    return {
        name: dg.MetadataValue.int(int(value)) if float(value).is_integer() else dg.MetadataValue.float(float(value))
        for name, value in metrics.items()
        if math.isfinite(value)
    }
