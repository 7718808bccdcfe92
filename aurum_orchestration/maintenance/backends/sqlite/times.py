"""Which rows are old, as SQL: SQLite has no type for times, so each value is taken for what it is for sure.

Text has to begin like an ISO date; a whole number is taken for seconds since 1970, or milliseconds where it is so
large, a fraction for those or for a Julian day. Everything else (20240131, NULL) says no time and is never old.
"""

from __future__ import annotations

from datetime import UTC, datetime

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.rules.clock import date_cutoff, local_cutoff
from aurum_orchestration.maintenance.backends.sqlite.catalog import Table
from aurum_orchestration.maintenance.backends.sqlite.connection import name

_OLD = """CASE typeof({c})
 WHEN 'text' THEN CASE
  WHEN {c} NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' OR julianday({c}) IS NULL THEN 0
  WHEN length({c}) = 10 THEN {c} < :before_date
  WHEN {c} GLOB '*[Zz]' OR {c} GLOB '*[+-][0-9][0-9]:[0-9][0-9]' THEN julianday({c}) < julianday(:before_utc)
  ELSE julianday({c}) < julianday(:before_local) END
 WHEN 'integer' THEN CASE
  WHEN {c} BETWEEN 100000000 AND 99999999999 THEN {c} < :before_seconds
  WHEN {c} BETWEEN 100000000000 AND 99999999999999 THEN {c} < :before_seconds * 1000
  ELSE 0 END
 WHEN 'real' THEN CASE
  WHEN {c} BETWEEN 1000000 AND 9999999 THEN {c} < julianday(:before_utc)
  WHEN {c} BETWEEN 100000000 AND 99999999999 THEN {c} < :before_seconds
  ELSE 0 END
 ELSE 0 END"""

_MARKED = """({c} IS NOT NULL AND CASE typeof({c})
 WHEN 'text' THEN lower({c}) NOT IN ('', '0', 'f', 'false', 'n', 'no') ELSE {c} <> 0 END)"""


def old_rows(table: Table, column: str, marked: str | None) -> str:
    """The condition for old rows, with the parameters of :func:`limits`; ``marked``: and with this column set.

    Raises UnsupportedError for a column that the table does not have.
    """
    for one in filter(None, (column, marked)):
        if not table.has(one):
            raise UnsupportedError(f"table {table.name} has no column {one}")
    condition = f"({_OLD.format(c=name(column))})"
    return condition if marked is None else f"{condition} AND {_MARKED.format(c=name(marked))}"


def limits(before: datetime, time_zone: str) -> dict[str, str | float]:
    """What the condition compares with: a moment, and the clock of the zone at that moment."""
    return {
        "before_utc": before.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
        "before_local": local_cutoff(before, time_zone).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
        "before_date": date_cutoff(before, time_zone).isoformat(),
        "before_seconds": before.timestamp(),
    }
