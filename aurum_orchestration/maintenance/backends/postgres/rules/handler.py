"""Cleanup, logs and sessions as the backend calls them: on the database all groups, on a table its own."""

from __future__ import annotations

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.rules.engine import PostgresRules
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable
from aurum_orchestration.maintenance.backends.rules.chores import OPERATIONS
from aurum_orchestration.maintenance.backends.rules.work import RulesExecution, plan_rules
from aurum_orchestration.maintenance.interfaces import MaintenancePlan
from aurum_orchestration.maintenance.operations.rule_groups import RuleGroupParameters


def plan(target: Database, table_id: TableId, parameters: RuleGroupParameters) -> MaintenancePlan:
    """The chores whose rows are old. Raises UnsupportedError when no rule group is about the target."""
    operation = OPERATIONS[type(parameters)]
    target.server.refuse_writes(operation)
    engine = PostgresRules(target, operation)
    table = table_id.parts if isinstance(target, PgTable) else None
    reason, steps, warnings = plan_rules(engine, target.config, table, parameters)
    if steps:
        warnings += engine.warnings()
    return target.plan(operation, parameters.model_dump(), reason, steps, warnings)


def execution(plan: MaintenancePlan, target: Database) -> RulesExecution:
    """The chores."""
    return RulesExecution(plan, PostgresRules(target, plan.operation))
