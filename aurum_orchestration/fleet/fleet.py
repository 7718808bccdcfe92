"""The fleet: backends, their tables, and what holds for each table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from aurum_orchestration.errors import UnknownNameError, nearest
from aurum_orchestration.fleet.config import BackendConfig, FleetConfig, TableRule
from aurum_orchestration.fleet.discovery import DiscoveryCache
from aurum_orchestration.fleet.policy import PolicyBook, PolicyModels, PolicyValue, builtin_policy_models
from aurum_orchestration.fleet.problems import Key, spell
from aurum_orchestration.fleet.rules import RuleIndex
from aurum_orchestration.fleet.table_id import (
    TableId,
    discovered_by,
    literal_id,
    literal_prefix,
    matches,
    quote_part,
)

_log = logging.getLogger(__name__)

DATABASE = "database"
"""Kind of what stands for a whole database, and is there whatever `discover` says."""

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.interfaces import DiscoveredTable


class Fleet:
    """A validated fleet.yaml together with what was last discovered. Makes no connection.

    ``home`` is where discoveries are remembered. ``line`` tells the line of a key in the file, for
    :meth:`explain`. Make one with :func:`aurum_orchestration.fleet.load.load_fleet`, or directly from
    a :class:`FleetConfig` in code. Safe to use from several threads.
    """

    def __init__(
        self,
        config: FleetConfig,
        *,
        home: Path,
        path: Path | None = None,
        policy_models: PolicyModels | None = None,
        line: Callable[[Key], int | None] = lambda _key: None,
    ) -> None:
        self.config = config
        self.path = path
        self._line = line
        self._rules = RuleIndex([rule.match for rule in config.tables])
        self._policies = PolicyBook(config, policy_models or builtin_policy_models(), self._rules)
        self._cache = DiscoveryCache(home / "discovery")

    @property
    def backends(self) -> Mapping[str, BackendConfig]:
        """The backends by name."""
        return self.config.backends

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that schedules, windows and nights are meant in."""
        return ZoneInfo(self.config.time_zone)

    def policy(self, table: TableId, operation: str) -> BaseModel:
        """Effective policy of an operation on a table; a :data:`~..maintenance.interfaces.PolicyLookup`.

        Raises UnknownNameError for an operation nobody knows.
        """
        return self._policies.effective(table, operation)

    def enabled(self, backend: str, operation: str) -> bool:
        """Whether the policies let the planner start an operation on some table of a backend."""
        return self._policies.enabled(backend, operation)

    def explain(self, table: TableId, operation: str) -> list[PolicyValue]:
        """Every key of the effective policy with its value and where that comes from."""
        return [
            PolicyValue(key, value, self._source(path, operation, key))
            for key, value, path in self._policies.sources(table, operation)
        ]

    def _source(self, path: Key | None, operation: str, key: str) -> str:
        if path is None:
            return "default"
        match path:
            case ("backends", name, *_):
                told = f"backend {name}"
            case ("tables", int(number), *_):
                told = f"match {self.config.tables[number].match}"
            case _:
                told = "fleet"
        line = self._line((*path, operation, key))
        return f"{told} ({self.path.name}:{line})" if self.path and line else told

    def place(self, key: Key) -> str:
        """Where a key stands, as errors tell it: ``fleet.yaml:12 (automation.sensors[0])``."""
        line = self._line(key)
        return f"{self.path}:{line} ({spell(key)})" if self.path and line else spell(key)

    def owners(self, table: TableId) -> list[str]:
        """Who answers for the table: of the matching rules that name owners, the strongest one's."""
        return next((rule.owners for rule in self._strongest_first(table) if rule.owners is not None), [])

    def description(self, table: TableId) -> str | None:
        """What the table is, by the strongest matching rule that says so."""
        return next((rule.description for rule in self._strongest_first(table) if rule.description is not None), None)

    def tags(self, table: TableId) -> dict[str, str]:
        """Tags of all matching rules; for the same key the strongest rule's value."""
        return {key: value for rule in reversed(self._strongest_first(table)) for key, value in rule.tags.items()}

    def asset_key(self, table: TableId) -> tuple[str, ...]:
        """Key of the table's asset: the one its own rule maps it to, else the parts of its id."""
        mapped = next((rule.asset_key for rule in self._strongest_first(table) if rule.asset_key is not None), None)
        return tuple(mapped) if mapped is not None else (table.backend, *table.parts)

    def _strongest_first(self, table: TableId) -> list[TableRule]:
        return [self.config.tables[number] for number in reversed(self._rules.matching(table))]

    def tables(self) -> list[DiscoveredTable]:
        """The tables found by the last discovery that ``discover`` still covers; empty when there was none."""
        return [
            found
            for name, backend in self.backends.items()
            for found in self._cache.load(name)
            if found.kind == DATABASE or discovered_by(backend.discover, found.table)
        ]

    def remember(self, backend: str, tables: Sequence[DiscoveredTable]) -> None:
        """Keep what a discovery of a backend found, in place of what was known.

        Logs a warning for every rule that was written for this backend and matches none of the tables.
        Raises StorageWriteError.
        """
        self._cache.save(backend, tables)
        used = {number for found in tables for number in self._rules.matching(found.table)}
        for number, rule in enumerate(self.config.tables):
            if number not in used and literal_prefix(rule.match)[:1] == (backend,):
                line = self._line(("tables", number, "match"))
                where = f"{self.path}:{line}" if self.path and line else f"rule {number + 1}"
                _log.warning("%s: no table of %s matches %s", where, backend, rule.match)

    def select(self, globs: Sequence[str], tables: Iterable[TableId]) -> list[TableId]:
        """Of the tables those that a glob matches, in their order; all of them when no glob is given.

        Raises UnknownNameError, with the nearest name, when a glob matches none; RequestError when one
        is not well formed.
        """
        known = dict.fromkeys(tables)
        if not globs:
            return list(known)
        chosen: set[TableId] = set()
        for glob in globs:
            found = _matching(glob, known)
            if not found:
                raise UnknownNameError(f"{glob!r} matches no table", hint=self._meant(glob, list(known)))
            chosen.update(found)
        return [table for table in known if table in chosen]

    def _meant(self, glob: str, tables: Sequence[TableId]) -> str:
        backend = literal_prefix(glob)[:1]
        if backend and backend[0] not in {*self.backends, *(table.backend for table in tables)}:
            return f"A table's id begins with its backend. {nearest(backend[0], self.backends)}"
        return _nearest_table(glob, tables)


def _matching(glob: str, tables: Collection[TableId]) -> list[TableId]:
    only = literal_id(glob)
    if only is not None:  # thousands of ids may be asked for among thousands of tables
        return [only] if only in tables else []
    return [table for table in tables if matches(glob, table)]


def _nearest_table(glob: str, tables: Sequence[TableId]) -> str:
    if not tables:
        return "No table is known: no discovery has found any yet."
    if literal_id(glob) is not None:
        return nearest(glob, map(str, tables))
    spaces = {".".join(map(quote_part, (table.backend, *table.namespace))) for table in tables}
    return nearest(glob, [f"{space}.*" for space in spaces])
