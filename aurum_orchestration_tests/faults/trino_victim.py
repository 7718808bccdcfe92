"""What runs in the process of a victim that works through Trino alone; it kills itself around a statement."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from trino.client import TrinoRequest

# imported for the server process that victims are forked from
import aurum_orchestration.maintenance.backends.iceberg.trino.engine  # noqa: F401
from aurum_orchestration.maintenance.backends.iceberg.trino.client import Answer, TrinoClient
from aurum_orchestration_tests.faults.steps import Steps, arm_databases
from aurum_orchestration_tests.faults.trino_site import Site
from aurum_orchestration_tests.servers.trino import TrinoServer

BEFORE, SENT, ENDED, RECORDED = "before it is sent", "while it runs", "once it ended", "before that is recorded"


@dataclass(frozen=True)
class TrinoVictim:
    """An operation on ``t`` of a namespace; the process dies at a point of its statement of that number (None: not)."""

    server: TrinoServer
    namespace: str
    home: Path
    operation: str
    parameters: Mapping[str, Any]
    point: str | None
    number: int = 1


class _Points(Steps):
    """The statements that change something, each with its points; ``taken`` are those that were reached."""

    def __init__(self, given: TrinoVictim) -> None:
        super().__init__(str(given.home), at=0)
        self._at = (given.point, given.number)
        self.number, self.point = 0, ""
        self.mine = threading.local()

    def reach(self, point: str) -> None:
        self.point = point
        self.taken.append(f"{self.number}: {point}")
        if (point, self.number) == self._at:
            self.halt()

    def take(self, what: str, path: str = "") -> None:
        """A commit of the history; that of the lease's heartbeat may be the first one, too."""
        if self.point == ENDED:
            self.reach(RECORDED)


def _arm(points: _Points) -> None:
    change, post = TrinoClient.change, TrinoRequest.post

    def changing(client: TrinoClient, sql: str, **given: Any) -> Answer:
        points.number += 1
        points.reach(BEFORE)
        points.mine.changing = True
        try:
            answer = change(client, sql, **given)
        finally:
            points.mine.changing = False
        points.reach(ENDED)
        return answer

    def posting(request: TrinoRequest, *arguments: Any, **given: Any) -> Any:
        answer = post(request, *arguments, **given)
        if getattr(points.mine, "changing", False):
            points.reach(SENT)
        return answer

    TrinoClient.change = changing  # type: ignore[method-assign, assignment]
    TrinoRequest.post = posting  # type: ignore[method-assign, assignment]
    arm_databases(points)


def trino_victim(given: TrinoVictim, answer: Connection | None) -> None:
    """Do the operation without a catalog; when it lives, answer with the status, its reason and the points reached."""
    points = _Points(given)
    with given.server.lake() as catalog:
        table = Site(given.server, catalog, given.namespace, given.home)
        _arm(points)
        done = asyncio.run(table.go(given.operation, options={"embedded": False}, **given.parameters))
    if answer is not None:
        with closing(answer):
            answer.send((str(done.status), done.reason, points.taken))
