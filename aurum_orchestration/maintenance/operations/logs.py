"""Logs: rows of log tables past their age are deleted, by the rule groups that fleet.yaml has for the backend."""

from __future__ import annotations

from aurum_orchestration.maintenance.interfaces import OperationType
from aurum_orchestration.maintenance.operations.base import PlannedOperation
from aurum_orchestration.maintenance.operations.rule_groups import RuleGroupParameters, RuleGroupPolicy


class LogsParameters(RuleGroupParameters):
    """What a clean-up of logs may be told. The groups themselves are in fleet.yaml, with their backend."""


class LogsPolicy(RuleGroupPolicy):
    """The ``logs`` section of a policy."""


class LogsOperation(PlannedOperation):
    """Deletes old rows of log tables, group by group, in batches, each its own transaction."""

    operation = OperationType.LOGS
    title = "Clean audit/task logs"
    Parameters = LogsParameters
    Policy = LogsPolicy
