"""What partitioning a table that has outgrown one would look like: a report, nothing is done."""

from __future__ import annotations

from psycopg import sql

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.postgres.rows.relation import TIMES, row_table
from aurum_orchestration.maintenance.backends.postgres.table import PgTable
from aurum_orchestration.maintenance.backends.reports import report_step
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType
from aurum_orchestration.maintenance.operations.partition_evolution import PartitionEvolutionParameters
from aurum_orchestration.maintenance.planner.words import size

_GIB = 1024**3

_TABLE = """
SELECT pg_total_relation_size(%(oid)s::oid)::float8 AS bytes, c.reltuples::float8 AS rows,
       EXISTS (SELECT FROM pg_constraint k WHERE k.contype IN ('p', 'u') AND k.conrelid = c.oid
                  AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = %(column)s
                                     AND a.attnum = ANY (k.conkey))) AS keys_without,
       EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid OR i.inhparent = c.oid) AS inherits
  FROM pg_class c WHERE c.oid = %(oid)s::oid
"""


def propose(table: PgTable, parameters: PartitionEvolutionParameters) -> MaintenancePlan:
    """A report with the SQL of a partitioned twin, for a table that is large and has a column with a time.

    Raises UnsupportedError for a table that is no partition's worth, or has no such column.
    """
    with table.look() as session:
        rows = row_table(session, table.id.parts)
        times = [one for one in rows.columns if one.base in TIMES and not one.generated]
        column = times[0].name if times else ""
        found = session.row(_TABLE, {"oid": table.oid, "column": column})
    if found.bytes < parameters.propose_from_gb * _GIB:
        raise UnsupportedError(
            f"it is not partitioned, and at {size(found.bytes)} need not be (propose_from_gb)",
            operation=OperationType.PARTITION_EVOLUTION,
        )
    if not times:
        raise UnsupportedError("no column has a time by which it could be partitioned")
    if found.inherits:
        raise UnsupportedError("it takes part in inheritance, so it cannot be partitioned")
    twin = sql.Identifier(rows.schema, f"{rows.name}_partitioned")
    made = sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING GENERATED) PARTITION BY RANGE ({});").format(
        twin, rows.identifier, sql.Identifier(column)
    )
    notes = [f"Copy into it in batches, then rename both in one transaction; {made.as_string(None)}"]
    if found.keys_without:
        notes.append(f"Its primary or unique keys have to contain {column} then.")
    told = f"{table.id} has outgrown one table: {size(found.bytes)}, {max(0.0, found.rows):,.0f} rows; by {column}"
    step = report_step(
        told,
        {
            "sql": made.as_string(None),
            "column": column,
            "other_columns": [one.name for one in times[1:]],
            "missing": notes,
        },
    )
    return table.plan(str(OperationType.PARTITION_EVOLUTION), parameters.model_dump(), told, [step])
