"""Cleanup: records past their age are archived and deleted, by the rule groups that fleet.yaml has for the backend."""

from __future__ import annotations

from aurum_orchestration.maintenance.interfaces import OperationType
from aurum_orchestration.maintenance.operations.base import PlannedOperation
from aurum_orchestration.maintenance.operations.rule_groups import RuleGroupParameters, RuleGroupPolicy


class CleanupParameters(RuleGroupParameters):
    """What a cleanup may be told. The groups themselves are in fleet.yaml, with their backend."""


class CleanupPolicy(RuleGroupPolicy):
    """The ``cleanup`` section of a policy."""


class CleanupOperation(PlannedOperation):
    """Archives and deletes old or soft-deleted records, group by group, in batches, each its own transaction."""

    operation = OperationType.CLEANUP
    title = "Clean soft-deleted records"
    Parameters = CleanupParameters
    Policy = CleanupPolicy
