"""Three questions somebody has about the flights, each answered from the lake and timed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """A question, what it reads, and the SQL that makes one line of text of what was read."""

    text: str
    scans: Mapping[str, Scan]
    sql: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found, and the wall seconds from opening the tables to having it."""

    question: str
    seconds: float
    text: str


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
        """
        WITH worst AS (
            SELECT name, avg(arr_delay) AS late FROM flights JOIN airlines USING (carrier)
            GROUP BY name ORDER BY late DESC, name LIMIT 3
        )
        SELECT string_agg(format('{} {:.0f} min', split_part(name, ' ', 1), late), ', ' ORDER BY late DESC) FROM worst
        """,
    ),
    Question(
        "From when on does one wait at the gate?",
        {"flights": Scan(("hour", "dep_delay"))},
        """
        WITH waits AS (SELECT hour, avg(dep_delay) AS late FROM flights GROUP BY hour HAVING late > 10)
        SELECT format('from {} h on, worst at {} h: {:.0f} min', min(hour), arg_max(hour, late), max(late)) FROM waits
        """,
    ),
    Question(
        "What does a strong wind cost?",
        {
            "flights": Scan(("origin", "time_hour", "dep_delay")),
            "weather": Scan(("origin", "time_hour", "wind_speed")),
        },
        """
        WITH costs AS (
            SELECT origin, avg(dep_delay) FILTER (wind_speed >= 25) - avg(dep_delay) FILTER (wind_speed < 25) AS more
            FROM flights JOIN weather USING (origin, time_hour) GROUP BY origin
        )
        SELECT string_agg(format('{} {:+.0f} min', origin, more), ', ' ORDER BY origin) FROM costs
        """,
    ),
)


def ask(catalog: Catalog, question: Question) -> Answer:
    """The answer, timed once. Read the tables' files before, so that a cold disk does not count."""
    began = time.perf_counter()
    with duckdb.connect() as connection:
        for name, scan in question.scans.items():
            table = catalog.load_table((NAMESPACE, name))
            connection.register(name, table.scan(scan.row_filter, selected_fields=scan.columns).to_arrow())
        [(text,)] = connection.execute(question.sql).fetchall()
    return Answer(question.text, time.perf_counter() - began, text or "nothing")
