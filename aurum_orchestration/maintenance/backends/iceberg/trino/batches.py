"""Many tables in one statement: a SELECT for each, joined by UNION ALL; a broken table does not cost the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aurum_orchestration.errors import AurumError
from aurum_orchestration.maintenance.backends.iceberg.trino.client import TrinoClient

PER_QUERY = 96
"""SELECTs in one statement: each is a stage, of which Trino allows 150 in a statement unless told otherwise."""

Rows = list[tuple[Any, ...]]


def gather(
    client: TrinoClient, selects: Mapping[int, Sequence[str]], *, per_query: int = PER_QUERY, workers: int = 2
) -> dict[int, Rows | AurumError]:
    """The rows that each table's SELECTs return, by the table's number, or the error that they end in.

    Every SELECT has the table's number as its first column, which is cut off; all have the same column types.
    Raises the client's error when the server cannot be asked at all.
    """
    batches: list[list[int]] = [[]]
    room = per_query
    for number, listed in selects.items():
        if len(listed) > room and batches[-1]:
            batches.append([])
            room = per_query
        batches[-1].append(number)
        room -= len(listed)
    found: dict[int, Rows | AurumError] = {}
    ask = _asker(client, selects)
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="trino-measure") as pool:
        for part in pool.map(ask, [batch for batch in batches if batch]):
            found |= part
    return found


def _asker(
    client: TrinoClient, selects: Mapping[int, Sequence[str]]
) -> Callable[[Sequence[int]], dict[int, Rows | AurumError]]:
    def ask(numbers: Sequence[int]) -> dict[int, Rows | AurumError]:
        found: dict[int, Rows | AurumError] = {number: [] for number in numbers}
        try:
            answer = client.query(
                " UNION ALL ".join(select for number in numbers for select in selects[number]), operation="measure"
            )
        except AurumError as error:
            # is it the server, or one of the tables? raises when it is the server
            client.ping()
            if len(numbers) == 1:
                return {numbers[0]: error}
            half = len(numbers) // 2
            return ask(numbers[:half]) | ask(numbers[half:])
        for number, *row in answer.rows:
            rows = found[number]
            if isinstance(rows, list):
                rows.append(tuple(row))
        return found

    return ask
