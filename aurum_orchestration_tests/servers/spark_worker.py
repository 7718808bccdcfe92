"""Runs inside the Python environment that has pyspark: takes requests from stdin, answers on stdout.

A request is a line of JSON with ``do``; an answer is a line of base64 around a pickle of ("ok", value) or
("error", text). Everything else that Spark and its JVM print goes to stderr.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


class Worker:
    """One JVM with a session per catalog."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        builder = importlib.import_module("pyspark.sql").SparkSession.builder
        for key, value in settings.items():
            builder = builder.config(key, value)
        self._root: Any = builder.getOrCreate()
        self._java = self._root.sparkContext._jvm
        self._sessions: list[Any] = []

    def session(self, settings: Mapping[str, str]) -> int:
        """A session with settings, such as a catalog, of its own; its number."""
        made = self._root.newSession()
        for key, value in settings.items():
            made.conf.set(key, value)
        self._sessions.append(made)
        return len(self._sessions) - 1

    def sql(self, session: int, text: str) -> list[dict[str, Any]]:
        """The rows that a statement answers."""
        return [row.asDict(recursive=True) for row in self._sessions[session].sql(text).collect()]

    def records(self, session: int, table: str) -> list[str]:
        """The rows of a table, as Apache Iceberg's own generic reader prints them: it knows every type."""
        found = self._java.org.apache.iceberg.data.IcebergGenerics.read(self._table(session, table)).build()
        return [row.toString() for row in _every(found)]

    def planned(self, session: int, table: str, column: str, operator: str, value: Any) -> int:
        """How many data files a scan with a filter would open."""
        expressions = self._java.org.apache.iceberg.expressions.Expressions
        wanted = getattr(expressions, operator)(column, value)
        return sum(1 for _ in _every(self._table(session, table).newScan().filter(wanted).planFiles()))

    def _table(self, session: int, table: str) -> Any:
        loader = self._java.org.apache.iceberg.spark.Spark3Util
        return loader.loadIcebergTable(self._sessions[session]._jsparkSession, table)


def _every(closeable: Any) -> Iterator[Any]:
    found = closeable.iterator()
    while found.hasNext():
        yield found.next()
    closeable.close()


def main(settings: Mapping[str, str]) -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    worker: Worker | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            worker = worker or Worker(settings)
            value = getattr(worker, request.pop("do"))(**request)
            answer: Sequence[Any] = ("ok", value)
        except Exception as error:
            answer = ("error", f"{type(error).__name__}: {error}")
        answers.write(base64.b64encode(pickle.dumps(answer)) + b"\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
