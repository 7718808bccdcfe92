"""Sessions: rows that are past their expiry are deleted, by the rule groups that fleet.yaml has for the backend."""

from __future__ import annotations

from aurum_orchestration.maintenance.interfaces import OperationType
from aurum_orchestration.maintenance.operations.base import PlannedOperation
from aurum_orchestration.maintenance.operations.rule_groups import RuleGroupParameters, RuleGroupPolicy


class SessionsParameters(RuleGroupParameters):
    """What a clean-up of sessions may be told. The groups themselves are in fleet.yaml, with their backend."""


class SessionsPolicy(RuleGroupPolicy):
    """The ``sessions`` section of a policy."""


class SessionsOperation(PlannedOperation):
    """Deletes expired sessions, group by group, in batches; safe to run often."""

    operation = OperationType.SESSIONS
    title = "Clean expired sessions"
    Parameters = SessionsParameters
    Policy = SessionsPolicy
