"""Results as rows and back, without loss.

JSON has no NaN and no infinity: metrics keep them as the texts ``NaN``, ``Infinity`` and ``-Infinity``,
everything else as ``{"$float": "nan"}``. Values JSON has no word for (dates, paths) come back as their
JSON form. Texts that a database refuses (NUL, lone surrogates) have those characters
replaced, because a record must never fail for the text it carries.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_jsonable_python
from sqlalchemy import Row

from aurum_orchestration.errors import HistoryUnusableError
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, MaintenanceResult, OperationType

_FLOAT = "$float"


def storable(text: str) -> str:
    """``text`` with what PostgreSQL (NUL) or UTF-8 (lone surrogates) cannot hold replaced."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def metrics_to_text(metrics: Mapping[str, float]) -> str:
    """A JSON object of numbers; what is not finite is a text."""
    return json.dumps({name: value if math.isfinite(value) else _word(value) for name, value in metrics.items()})


def metrics_from_text(text: str) -> dict[str, float]:
    """The inverse of :func:`metrics_to_text`."""
    return {name: float(value) for name, value in json.loads(text).items()}


def to_text(value: Any) -> str:
    """Any JSON-like value as JSON text in ASCII."""
    return json.dumps(_tagged(to_jsonable_python(value, inf_nan_mode="constants", fallback=str)), allow_nan=False)


def from_text(text: str) -> Any:
    """The inverse of :func:`to_text`."""
    return json.loads(text, object_hook=_untagged)


def row_of(result: MaintenanceResult, who: str) -> dict[str, Any]:
    """The columns of ``aurum_operations`` for a result."""
    config, problem = result.config, result.problem
    return {
        "operation_id": storable(result.operation_id),
        "table_id": storable(config.target_table),
        "backend": storable(result.backend),
        "operation": storable(str(config.operation_type)),
        "status": result.status.value,
        "reason": storable(result.reason),
        "who": storable(who),
        "dry_run": config.dry_run,
        "backend_type": None if config.backend_type is None else storable(config.backend_type),
        "parameters": to_text(config.parameters),
        "plan_id": result.plan_id,
        "steps": None if result.steps is None else to_text([step.model_dump() for step in result.steps]),
        "metrics": metrics_to_text(result.metrics),
        "verification": None if result.verification is None else to_text(result.verification.model_dump()),
        "problem": None if problem is None else to_text(problem.model_dump()),
        "problem_type": None if problem is None else storable(problem.type),
        "warnings": to_text(result.warnings),
        "undo": None if result.undo is None else storable(result.undo),
        "undo_data": None if result.undo_data is None else to_text(result.undo_data),
        "started_at": result.started_at,
        "finished_at": result.finished_at,
        "seconds": result.seconds,
    }


def result_of(row: Row[Any]) -> MaintenanceResult:
    """The result that :func:`row_of` made a row of. Raises HistoryUnusableError for a row that is none."""
    try:
        return _result(row)
    except ValueError as error:
        raise HistoryUnusableError(
            f"the record of operation {row.operation_id} cannot be read: {error}",
            hint="Somebody changed it: delete that row from aurum_operations.",
        ) from error


def _result(row: Row[Any]) -> MaintenanceResult:
    known = OperationType.__members__.values()
    return MaintenanceResult(
        operation_id=row.operation_id,
        config=MaintenanceConfig(
            operation_type=OperationType(row.operation) if row.operation in known else row.operation,
            target_table=row.table_id,
            backend_type=row.backend_type,
            dry_run=row.dry_run,
            parameters=from_text(row.parameters),
        ),
        backend=row.backend,
        status=row.status,
        reason=row.reason,
        metrics=metrics_from_text(row.metrics),
        plan_id=row.plan_id,
        steps=_optional(row.steps),
        verification=_optional(row.verification),
        problem=_optional(row.problem),
        warnings=from_text(row.warnings),
        undo=row.undo,
        undo_data=_optional(row.undo_data),
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _optional(text: str | None) -> Any:
    return None if text is None else from_text(text)


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _tagged(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: _word(value)}
    if isinstance(value, dict):
        # a user's own dictionary that looks like a tag gets one more $
        escape = "$" if len(value) == 1 and next(iter(value)).startswith("$") else ""
        return {escape + key: _tagged(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    return value


def _untagged(value: dict[str, Any]) -> Any:
    if len(value) != 1:
        return value
    key, item = next(iter(value.items()))
    if key == _FLOAT:
        return float(item)
    return {key[1:]: item} if key.startswith("$$") else value
