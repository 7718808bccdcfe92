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

    def records(self, session: int, table: str, filtered: Sequence[Any] | None = None) -> list[str]:
        """The rows of a table as Apache Iceberg's own generic reader gives them: it knows every type.

        ``filtered`` is a column, an operator such as ``equal``, and a value.
        """
        loaded = self._table(session, table)
        width = loaded.schema().columns().size()  # where there are deletes, each row has its position, too
        reading = self._java.org.apache.iceberg.data.IcebergGenerics.read(loaded)
        if filtered is not None:
            reading = reading.where(self._expression(*filtered))
        return [
            ", ".join(self._text(row.get(position)) for position in range(width)) for row in _every(reading.build())
        ]

    def planned(self, session: int, table: str, column: str, operator: str, value: Any) -> int:
        """How many data files a scan with a filter would open."""
        wanted = self._expression(column, operator, value)
        return sum(1 for _ in _every(self._table(session, table).newScan().filter(wanted).planFiles()))

    def _expression(self, column: str, operator: str, value: Any) -> Any:
        return getattr(self._java.org.apache.iceberg.expressions.Expressions, operator)(column, value)

    def _text(self, cell: Any) -> str:
        if hasattr(cell, "getClass"):
            if "ByteBuffer" not in cell.getClass().getName():
                return str(cell.toString())
            cell = bytes(cell.array())  # as text it has only its size
        return cell.hex() if isinstance(cell, bytes | bytearray) else str(cell)

    def _table(self, session: int, table: str) -> Any:
        # a session knows a catalog from its first statement about it on
        self.sql(session, f"SHOW NAMESPACES IN {table.split('.', maxsplit=1)[0]}")
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
