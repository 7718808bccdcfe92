"""Many tables in one statement: a SELECT for each, joined by UNION ALL; a broken table does not cost the others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from aurum_orchestration.errors import AurumError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.trino.client import TrinoClient
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import relation, schema_of

PER_QUERY = 48
"""SELECTs in one statement: each is a stage, of which Trino allows 150 in a statement unless told otherwise.

Twice as many take more than twice as long to plan.
"""

AT_ONCE = 8
"""Statements at once: much of what one takes is waiting for the catalog, which it asks for one table after another."""

Rows = list[tuple[Any, ...]]
_T = TypeVar("_T")

_SCAN = re.compile(r"(?P<table>.+)\$data(?:@(?P<snapshot>\d+))?", re.DOTALL)
"""How a plan names the table that it reads, and its snapshot where it has one."""


def gather(client: TrinoClient, selects: Mapping[int, Sequence[str]]) -> dict[int, Rows | AurumError]:
    """The rows that each table's SELECTs return, by the table's number, or the error that they end in.

    Every SELECT has the table's number as its first column, which is cut off; all have the same column types.
    Raises the client's error when the server cannot be asked at all.
    """

    def ask(numbers: Sequence[int]) -> dict[int, Rows]:
        found: dict[int, Rows] = {number: [] for number in numbers}
        statement = " UNION ALL ".join(select for number in numbers for select in selects[number])
        for number, *row in client.query(statement, operation="measure").rows:
            found[number].append(tuple(row))
        return found

    return _in_batches(client, {number: len(listed) for number, listed in selects.items()}, ask)


def current_snapshots(
    client: TrinoClient, tables: Mapping[int, TableId], session: Mapping[str, str]
) -> dict[int, int | AurumError | None]:
    """The current snapshot of each table by the table's number, None without one, or the error that it ends in.

    The plan of a statement names the snapshot that it would read, so nothing is executed. A table that the plan does
    not name in this way is absent. Raises the client's error when the server cannot be asked at all.
    """

    def ask(numbers: Sequence[int]) -> dict[int, int | None]:
        # a column that all tables have, so that they can be joined
        selects = [f'SELECT "$path" FROM {relation(client.catalog, tables[number])}' for number in numbers]
        statement = f"EXPLAIN (TYPE LOGICAL, FORMAT JSON) {' UNION ALL '.join(selects)}"
        plan = json.loads(client.query(statement, operation="measure", session=session).first()[0])
        scans = {match["table"]: match["snapshot"] for match in map(_SCAN.fullmatch, _scanned(plan)) if match}
        names = {number: f"{client.catalog}:{schema_of(tables[number])}.{tables[number].name}" for number in numbers}
        return {
            number: int(snapshot) if (snapshot := scans[name]) else None
            for number, name in names.items()
            if name in scans
        }

    return _in_batches(client, dict.fromkeys(tables, 1), ask)


def _scanned(plan: Mapping[str, Any]) -> Iterator[str]:
    """The tables that a plan reads: a tree of nodes, in newer versions one tree for each of its fragments."""
    if "children" not in plan:
        for fragment in plan.values():
            yield from _scanned(fragment)
        return
    if table := plan.get("descriptor", {}).get("table"):
        yield table
    for child in plan["children"]:
        yield from _scanned(child)


def _in_batches(
    client: TrinoClient, sizes: Mapping[int, int], ask: Callable[[Sequence[int]], dict[int, _T]]
) -> dict[int, _T | AurumError]:
    """What ``ask`` tells of each table, or its error. ``sizes``: by table, how many SELECTs it takes to ask for it."""

    def answers(numbers: Sequence[int]) -> dict[int, _T | AurumError]:
        try:
            return {**ask(numbers)}
        except AurumError as error:
            # is it the server, or one of the tables? raises when it is the server
            client.ping()
            if len(numbers) == 1:
                return {numbers[0]: error}
            half = len(numbers) // 2
            return answers(numbers[:half]) | answers(numbers[half:])

    batches: list[list[int]] = [[]]
    room = PER_QUERY
    for number, size in sizes.items():
        if size > room and batches[-1]:
            batches.append([])
            room = PER_QUERY
        batches[-1].append(number)
        room -= size
    found: dict[int, _T | AurumError] = {}
    with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="trino-measure") as pool:
        for part in pool.map(answers, [batch for batch in batches if batch]):
            found |= part
    return found
