"""Values of options that are more than a word: moments, and parameters of operations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from aurum_orchestration.errors import RequestError, nearest

_AGO = re.compile(r"(\d+)\s*(min|h|d|w)")
_AGO_UNITS = {"min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_since(text: str) -> datetime:
    """A moment: ``7d``, ``24h``, ``30min``, ``2w`` ago, or an ISO date or time (UTC unless it says otherwise)."""
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago:
            return datetime.now(UTC) - timedelta(**{_AGO_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError) as error:
        raise RequestError(
            f"--since {text!r} is no moment", hint="Write 7d, 24h, 30min, or 2026-01-31, or 2026-01-31T06:30."
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_parameters(pairs: Sequence[str], operation: str, model: type[BaseModel]) -> dict[str, Any]:
    """``key=value`` texts as values of the types that the operation's parameters have.

    What is not a plain value (a list, a mapping, null) is written as JSON. Raises RequestError naming
    the wrong key or value.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise RequestError(f"--parameter {pair!r} has no value", hint="Write --parameter key=value.")
        field = model.model_fields.get(key)
        if field is None:
            raise RequestError(
                f"{operation} has no parameter {key!r}", operation=operation, hint=nearest(key, model.model_fields)
            )
        adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]
        values[key] = _typed(text, adapter, f"parameter {key!r} of {operation}", operation)
    return values


def _typed(text: str, adapter: TypeAdapter[Any], what: str, operation: str) -> Any:
    try:
        return adapter.validate_strings(text)
    except ValidationError as as_text:
        try:
            return adapter.validate_json(text)
        except ValidationError:
            message = as_text.errors()[0]["msg"]
        raise RequestError(f"{what}: {message}, got {text!r}", operation=operation) from as_text
