"""Policies: what the sections of fleet.yaml mean for one table, and what is wrong with them.

A section (``compaction: {min_input_files: 5}``) says only what differs. The effective policy of a
table is built key by key: defaults < fleet < backend < globs in their order < the table's own rule.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from aurum_orchestration.errors import ConfigurationError, UnknownNameError, nearest
from aurum_orchestration.fleet.config import FleetConfig, PolicySections
from aurum_orchestration.fleet.problems import Key, Problem, from_validation
from aurum_orchestration.fleet.rules import RuleIndex
from aurum_orchestration.fleet.table_id import TableId, literal_prefix
from aurum_orchestration.maintenance.calendar import CALENDAR, CalendarPolicy
from aurum_orchestration.maintenance.checks import CHECKS, ChecksPolicy
from aurum_orchestration.maintenance.operations.backup import BackupPolicy
from aurum_orchestration.maintenance.operations.bloat import BloatPolicy
from aurum_orchestration.maintenance.operations.cleanup import CleanupPolicy
from aurum_orchestration.maintenance.operations.compaction import CompactionPolicy
from aurum_orchestration.maintenance.operations.floors import below_floor
from aurum_orchestration.maintenance.operations.logs import LogsPolicy
from aurum_orchestration.maintenance.operations.manifests import ManifestsPolicy
from aurum_orchestration.maintenance.operations.partition_evolution import PartitionEvolutionPolicy
from aurum_orchestration.maintenance.operations.reindex import ReindexPolicy
from aurum_orchestration.maintenance.operations.retention import RetentionPolicy
from aurum_orchestration.maintenance.operations.sessions import SessionsPolicy
from aurum_orchestration.maintenance.operations.stats import StatsPolicy
from aurum_orchestration.maintenance.operations.vacuum import VacuumPolicy
from aurum_orchestration.maintenance.operations.views import ViewsPolicy

PolicyModels = Mapping[str, type[BaseModel]]

SECTION_MODELS: PolicyModels = {CALENDAR: CalendarPolicy, CHECKS: ChecksPolicy}
"""The sections that every fleet knows, whatever its operations are."""


class PolicyValue(NamedTuple):
    """One key of an effective policy and where its value comes from."""

    key: str
    value: Any
    source: str


def builtin_policy_models() -> dict[str, type[BaseModel]]:
    """The policy model of every operation that this package defines, of the calendar and of the checks."""
    return {
        **SECTION_MODELS,
        "backup": BackupPolicy,
        "bloat": BloatPolicy,
        "cleanup": CleanupPolicy,
        "compaction": CompactionPolicy,
        "logs": LogsPolicy,
        "manifests": ManifestsPolicy,
        "partition_evolution": PartitionEvolutionPolicy,
        "reindex": ReindexPolicy,
        "retention": RetentionPolicy,
        "sessions": SessionsPolicy,
        "stats": StatsPolicy,
        "vacuum": VacuumPolicy,
        "views": ViewsPolicy,
    }


@dataclass(frozen=True)
class _Layer:
    """The policies of one place in the file."""

    sections: PolicySections
    path: Key


class PolicyBook:
    """Effective policies of all tables, computed once per set of rules that applies."""

    def __init__(self, config: FleetConfig, models: PolicyModels, rules: RuleIndex) -> None:
        self._config = config
        self._models = {**SECTION_MODELS, **models}
        self._rules = rules
        self._effective: dict[tuple[str, tuple[int, ...]], dict[str, BaseModel]] = {}
        # the table asked about last, and its policies: a decision asks for each operation's in a row
        self._last: tuple[TableId | None, dict[str, BaseModel]] = (None, {})
        self._by_content: dict[tuple[str, str], BaseModel] = {}

    def effective(self, table: TableId, operation: str) -> BaseModel:
        """The policy of an operation on a table, an instance of the operation's Policy model.

        Raises UnknownNameError for an operation without a policy, ConfigurationError when rules that
        are right one by one contradict each other together.
        """
        last, policies = self._last
        if last is not table:
            policies = self._effective.setdefault((table.backend, self._rules.matching(table)), {})
            self._last = (table, policies)
        known = policies.get(operation)
        if known is None:
            known = policies[operation] = self._merge(table, operation)
        return known

    def sources(self, table: TableId, operation: str) -> list[tuple[str, Any, Key | None]]:
        """Every key of the effective policy: value, and path in the file (None: the default)."""
        policy = self.effective(table, operation)
        origin = {key: layer.path for layer in self._layers(table) for key in layer.sections.get(operation, ())}
        return [(key, getattr(policy, key), origin.get(key)) for key in type(policy).model_fields]

    def enabled(self, backend: str, operation: str) -> bool:
        """Whether ``enabled`` of an operation's policy may be true for some table of a backend.

        True also for an operation without a policy, or whose policy has no such key.
        """
        model = self._models.get(operation)
        switch = None if model is None else model.model_fields.get("enabled")
        if switch is None:
            return True
        config = self._config
        general = _merged((config.policy, config.backends[backend].policy), operation).get("enabled", switch.default)
        return bool(general) or any(
            rule.policy.get(operation, {}).get("enabled") for rule in config.tables if _may_match(rule.match, backend)
        )

    def _merge(self, table: TableId, operation: str) -> BaseModel:
        model = self._models.get(operation)
        if model is None:
            raise UnknownNameError(f"no operation is named {operation!r}", hint=nearest(operation, self._models))
        given = _merged((layer.sections for layer in self._layers(table)), operation)
        content = (operation, json.dumps(given, sort_keys=True))
        try:
            # many rules, few different policies
            if content not in self._by_content:
                self._by_content[content] = validate(model, given)
            return self._by_content[content]
        except ValidationError as error:
            told = "; ".join(problem.message for problem in from_validation(error, model))
            raise ConfigurationError(
                f"the {operation} policy of {table} does not hold together: {told}",
                table=str(table),
                operation=operation,
                hint="Several rules match this table; change one of them.",
            ) from error

    def _layers(self, table: TableId) -> Iterator[_Layer]:
        config = self._config
        yield _Layer(config.policy, ("policy",))
        backend = config.backends.get(table.backend)
        if backend is not None:
            yield _Layer(backend.policy, ("backends", table.backend, "policy"))
        for number in self._rules.matching(table):
            yield _Layer(config.tables[number].policy, ("tables", number, "policy"))


def validate(model: type[BaseModel], given: Mapping[str, Any]) -> BaseModel:
    """A policy from the keys given, typed strictly: text is no number. Raises pydantic's ValidationError."""
    return model.model_validate_json(json.dumps(given), strict=True)


def section_problems(raw: Any, path: Key, models: PolicyModels) -> Iterator[Problem]:
    """What is wrong with the policies written at one place, whatever stands elsewhere."""
    if not isinstance(raw, Mapping):
        return
    for operation, section in raw.items():
        here = (*path, operation)
        model = models.get(operation)
        if model is None:
            yield Problem(here, f"no operation is named {operation!r}", nearest(str(operation), models))
        elif isinstance(section, Mapping):
            problems = list(_value_problems(model, section, here))
            yield from problems
            if not problems:
                yield from (Problem((*here, key), told, hint) for key, told, hint in below_floor(model, section))


def _value_problems(model: type[BaseModel], section: Mapping[str, Any], path: Key) -> Iterator[Problem]:
    try:
        validate(model, section)
    except ValidationError as error:
        # what is missing, or wrong only together with other keys, other places may still put right
        for problem in from_validation(error, model, path):
            if len(problem.path) > len(path) and problem.path[len(path)] in section:
                yield problem


def combined_problems(config: FleetConfig, models: PolicyModels) -> Iterator[Problem]:
    """What is wrong only together: every place on top of those it inherits from, one rule at a time."""
    for name, backend in config.backends.items():
        below = (config.policy, backend.policy)
        yield from _chain_problems(below, ("backends", name, "policy"), models)
        for number, rule in enumerate(config.tables):
            if _may_match(rule.match, name):
                yield from _chain_problems((*below, rule.policy), ("tables", number, "policy"), models)


def _chain_problems(chain: tuple[PolicySections, ...], path: Key, models: PolicyModels) -> Iterator[Problem]:
    for operation in chain[-1]:
        model, given = models[operation], _merged(chain, operation)
        try:
            validate(model, given)
        except ValidationError as error:
            yield from from_validation(error, model, (*path, operation))


def _may_match(glob: str, backend: str) -> bool:
    return literal_prefix(glob)[:1] in {(), (backend,)}


def _merged(chain: Iterable[PolicySections], operation: str) -> dict[str, Any]:
    """The keys of an operation, each from the strongest place that has it: the last."""
    return {key: value for sections in chain for key, value in sections.get(operation, {}).items()}
