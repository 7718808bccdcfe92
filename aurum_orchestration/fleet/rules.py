"""Which rules of fleet.yaml hold for a table, fast for many tables and many rules."""

from __future__ import annotations

from collections.abc import Sequence

from aurum_orchestration.fleet.table_id import TableId, literal_id, literal_prefix, matches


class RuleIndex:
    """The globs of the rules, looked up by the leading parts that hold no wildcard.

    Thread-safe: what is remembered only grows, and computing it twice does no harm.
    """

    def __init__(self, globs: Sequence[str]) -> None:
        self._globs = tuple(globs)
        self._exact = tuple(literal_id(glob) is not None for glob in globs)
        self._by_prefix: dict[tuple[str, ...], list[int]] = {}
        for number, glob in enumerate(globs):
            self._by_prefix.setdefault(literal_prefix(glob), []).append(number)
        self._matching: dict[TableId, tuple[int, ...]] = {}

    def matching(self, table: TableId) -> tuple[int, ...]:
        """Numbers of the rules that match, weakest first: globs in order, then the table's own in order."""
        known = self._matching.get(table)
        if known is None:
            known = self._matching[table] = self._find(table)
        return known

    def _find(self, table: TableId) -> tuple[int, ...]:
        names = (table.backend, *table.parts)
        found = [
            (self._exact[number], number)
            for length in range(len(names) + 1)
            for number in self._by_prefix.get(names[:length], ())
            if (length == len(names) if self._exact[number] else matches(self._globs[number], table))
        ]
        return tuple(number for _, number in sorted(found))
