"""Three questions somebody has about the flights, each answered from the lake and timed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
from pyiceberg.catalog import Catalog

from aurum_orchestration.local.lake import NAMESPACE


@dataclass(frozen=True, slots=True)
class Scan:
    """What a question reads of one table."""

    columns: tuple[str, ...]
    row_filter: str = "true"


@dataclass(frozen=True, slots=True)
class Question:
    """A question, what it reads, and the SQL over what was read."""

    text: str
    scans: Mapping[str, Scan]
    sql: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows that answer a question, and the wall seconds from opening the tables to the last row."""

    question: str
    seconds: float
    rows: Sequence[tuple[object, ...]] = field(repr=False)


QUESTIONS: Sequence[Question] = (
    Question(
        "Which airlines ran latest in July?",
        {
            "flights": Scan(
                ("carrier", "arr_delay"),
                "time_hour >= '2013-07-01T00:00:00+00:00' and time_hour < '2013-08-01T00:00:00+00:00'",
            ),
            "airlines": Scan(("carrier", "name")),
        },
        "SELECT name, round(avg(arr_delay), 1) AS minutes_late FROM flights JOIN airlines USING (carrier)"
        " GROUP BY name ORDER BY minutes_late DESC, name LIMIT 3",
    ),
    Question(
        "When in the day does waiting at the gate begin?",
        {"flights": Scan(("hour", "dep_delay"))},
        "SELECT hour, round(avg(dep_delay), 1) AS minutes_late, count(*) AS flights FROM flights"
        " WHERE dep_delay IS NOT NULL GROUP BY hour HAVING minutes_late > 10 ORDER BY hour LIMIT 1",
    ),
    Question(
        "What does a strong wind cost, airport by airport?",
        {
            "flights": Scan(("origin", "time_hour", "dep_delay")),
            "weather": Scan(("origin", "time_hour", "wind_speed")),
        },
        "SELECT origin, round(avg(dep_delay) FILTER (wind_speed >= 25) - avg(dep_delay) FILTER (wind_speed < 25), 1)"
        " AS minutes_more FROM flights JOIN weather USING (origin, time_hour) GROUP BY origin ORDER BY origin",
    ),
)


def ask(catalog: Catalog, question: Question) -> Answer:
    """The answer, timed once. Read the tables' files before, so that a cold disk does not count."""
    began = time.perf_counter()
    with duckdb.connect() as connection:
        for name, scan in question.scans.items():
            table = catalog.load_table((NAMESPACE, name))
            connection.register(name, table.scan(scan.row_filter, selected_fields=scan.columns).to_arrow())
        rows = connection.execute(question.sql).fetchall()
    return Answer(question.text, time.perf_counter() - began, rows)
