"""How ids of tables and names of backends become the words Dagster allows."""

from __future__ import annotations

import hashlib
import re

from aurum_orchestration.fleet.table_id import TableId

TABLE_TAG = "aurum/table"
OPERATION_TAG = "aurum/operation"
BACKEND_TAG = "aurum/backend"
TABLES_TAG = "aurum/tables"

MAINTENANCE = "maintenance"
"""Name of the job that does several operations."""

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_]+")
_NOT_IN_A_TAG = re.compile(r"[^A-Za-z0-9_.-]+")
_TAG_LENGTH = 63


def definition_name(text: str) -> str:
    """``text`` with everything but ASCII letters, digits and ``_`` turned into ``_``; never empty."""
    return _NOT_IN_A_NAME.sub("_", text).strip("_") or "_"


def group_name(table: TableId) -> str:
    """The asset group of a table: its backend and namespace, nested as Dagster nests groups."""
    return "/".join(definition_name(part) for part in (table.backend, *table.namespace))


def tag_value(text: str) -> str:
    """``text`` as a tag value. What had to be changed gets a short hash, so that no two texts become one."""
    clean = _NOT_IN_A_TAG.sub("_", text)
    if clean == text and len(text) <= _TAG_LENGTH:
        return text
    return f"{clean[: _TAG_LENGTH - 9]}.{digest(text, 8)}"


def digest(text: str, length: int = 16) -> str:
    """The first hex digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]
