"""Notices claimed by several senders at once, on each of the stores: every one is sent once."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from sqlalchemy import create_engine, text

from aurum_orchestration.fleet.notifications import Destination, NotificationRule, destinations
from aurum_orchestration.history import History, outbox
from aurum_orchestration.history.records import Notice, Notices
from aurum_orchestration.notifications.message import Message
from aurum_orchestration.notifications.notifier import Notifier
from aurum_orchestration_tests.integration.history.samples import wait_until

GROUPS, NOTICES, SENDERS = 12, 3, 4
CLAIM = timedelta(minutes=5)


def group(number: int) -> Notices:
    about = {"status": "failed", "operation": "compaction", "what": "it broke"}
    return Notices(
        f"g{number}", [Notice("1/1", {**about, "table": f"lake.g{number}.t{table}"}) for table in range(NOTICES)]
    )


def desk() -> list[Destination]:
    return list(destinations([NotificationRule(urls=["json://127.0.0.1/"])]))


def test_senders_at_once_send_every_notice_once(history: History, url: str) -> None:
    for number in range(GROUPS):
        history.post(group(number))
    messages: list[str] = []
    together = threading.Barrier(SENDERS)

    def keep(_url: str, message: Message) -> None:
        messages.append(message.body)

    def flush(_: int) -> int:
        with History(url) as own:  # as another process would
            together.wait(60)
            return Notifier(own, desk(), sender=keep).flush().sent

    with ThreadPoolExecutor(SENDERS) as threads:
        sent = sum(threads.map(flush, range(SENDERS)))
    assert sent == len(messages) == GROUPS
    told = Counter(word for body in messages for word in body.replace(":", " ").split() if word.startswith("lake.g"))
    assert told == {f"lake.g{number}.t{table}": 1 for number in range(GROUPS) for table in range(NOTICES)}
    assert Notifier(history, desk(), sender=keep).flush().sent == 0


def test_who_waits_for_anothers_claim_gets_none_of_its_notices(postgres_store: str) -> None:
    """PostgreSQL lets both look for what is due before one of them has claimed it."""
    with History(postgres_store) as first, History(postgres_store) as second, ThreadPoolExecutor(1) as thread:
        first.post(group(1))
        with first._store.writing() as connection:
            mine = outbox.claim(connection, ["1/1"], CLAIM)
            waiting = thread.submit(second.claim_notices, ["1/1"], CLAIM)
            wait_until(lambda: waits_for_a_lock(postgres_store), "the second sender waits for the first")
        theirs = waiting.result(60)
    assert mine is not None
    assert len(mine.notices) == NOTICES
    assert theirs is not None
    assert theirs.notices == ()


def waits_for_a_lock(url: str) -> bool:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            waiting = connection.execute(
                text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            ).scalar_one()
            return int(waiting) > 0
    finally:
        engine.dispose()
