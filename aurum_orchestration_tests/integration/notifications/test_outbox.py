"""Nothing is lost and nothing is sent twice: kills, receivers that are down, several senders at once."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aurum_orchestration.errors import MissingExtraError
from aurum_orchestration.fleet.notifications import Destination, NotificationRule, destinations
from aurum_orchestration.history import History
from aurum_orchestration.history.records import Notice, Notices
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration.notifications.message import MOST_NOTICES, Message
from aurum_orchestration.notifications.notifier import Flushed, Notifier
from aurum_orchestration_tests.command import Outcome, aurum, aurum_process, finished
from aurum_orchestration_tests.integration.notifications.conftest import TRADES, Desk
from aurum_orchestration_tests.servers.receivers import HttpReceiver

BEFORE_SENDING = """
import os, signal
from aurum_orchestration.notifications import notifier
# dies with the result recorded and nothing sent
notifier.Notifier.flush = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""

BEFORE_THE_END = """
import os, signal
from aurum_orchestration.maintenance.backends.iceberg.compact.execute import CompactionUnit
CompactionUnit.stage = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""

FLUSHING = """
import asyncio
from aurum_orchestration.maintenance.service import MaintenanceService
async def main():
    async with MaintenanceService() as service:
        print((await service.flush_notifications()).sent)
asyncio.run(main())
raise SystemExit
"""

RUN = ("run", "--operation", "compaction", "--table", TRADES)


def notices(*destinations: str, count: int = 1, group: str = "g") -> Notices:
    about = {"status": "failed", "operation": "compaction", "what": "it broke"}
    return Notices(
        group,
        [Notice(name, {**about, "table": f"lake.n.t{number:03}"}) for name in destinations for number in range(count)],
    )


def places(url: str, **rule: Any) -> list[Destination]:
    return list(destinations([NotificationRule(urls=[url], **rule)]))


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(f"sqlite:///{tmp_path}/history.db")


def ran(desk: Desk, before: str, *arguments: str) -> Outcome:
    """A real process that runs the code ``before`` and then the command."""
    return finished(
        aurum_process(*arguments, before=before, AURUM_HOME=str(desk.home), AURUM_FLEET=str(desk.settings.fleet))
    )


def test_killed_between_record_and_send_it_is_sent_later_once(desk: Desk, receiver: HttpReceiver) -> None:
    desk.tell({"urls": [receiver.url()], "on": ["completed"]})
    assert ran(desk, BEFORE_SENDING, *RUN).code == -signal.SIGKILL
    with desk.history() as history:
        (done,) = history.operations()
    assert done.status is MaintenanceStatus.COMPLETED
    assert receiver.messages == []
    with desk.history() as history:
        assert Notifier(history, desk.destinations()).flush() == Flushed(sent=1)
        assert Notifier(history, desk.destinations()).flush() == Flushed()
    assert receiver.titles == [f"aurum: compaction of {TRADES} completed"]
    assert done.operation_id in receiver.bodies[0]


def test_a_run_killed_in_the_middle_is_told_when_the_next_one_finds_it(desk: Desk, receiver: HttpReceiver) -> None:
    desk.tell({"urls": [receiver.url()], "on": ["failed", "completed"]})
    assert ran(desk, BEFORE_THE_END, *RUN).code == -signal.SIGKILL
    assert receiver.messages == []
    with desk.history() as history, history._store.writing() as connection:
        connection.exec_driver_sql("UPDATE aurum_leases SET expires_at = '2026-01-01 00:00:00.000000'")

    async def again() -> None:
        async with desk.service() as service:
            await service.maintain([TRADES], ["compaction"])

    asyncio.run(again())
    assert receiver.titles == ["aurum: 1 failed, 1 completed"]
    assert "ended without recording how" in receiver.bodies[0]


def test_a_sender_killed_before_it_could_note_it_sends_again_only_when_its_claim_is_over(
    history: History, receiver: HttpReceiver
) -> None:
    known = places(receiver.url())
    history.post(notices("1/1"))
    parcel = history.claim_notices(["1/1"], timedelta(minutes=5))  # this one's sender is never heard of again
    assert parcel is not None
    assert Notifier(history, known).flush() == Flushed()
    with history._store.writing() as connection:
        connection.exec_driver_sql("UPDATE aurum_outbox SET claimed_until = '2026-01-01 00:00:00.000000'")
    assert Notifier(history, known).flush() == Flushed(sent=1)
    assert not history.notices_sent(parcel)  # the claim is another's: what it says is not taken for true


def test_a_receiver_that_is_down_gets_it_when_it_is_up(history: History, receiver: HttpReceiver) -> None:
    known = places(receiver.url())
    history.post(notices("1/1"))
    receiver.status = 503
    notifier = Notifier(history, known, first_pause=timedelta(0))
    assert notifier.flush(0.2).failed >= 1
    assert receiver.messages == []
    box = history.outbox(["1/1"], datetime.now(UTC) - timedelta(days=1))
    assert (box.waiting, box.given_up) == (1, 0)
    assert box.error is not None
    assert "503" in box.error
    receiver.status = 200
    assert notifier.flush() == Flushed(sent=1)
    assert notifier.flush() == Flushed()
    assert len(receiver.messages) == 1


def test_it_is_not_tried_again_at_once(history: History, receiver: HttpReceiver) -> None:
    receiver.status = 500
    history.post(notices("1/1"))
    notifier = Notifier(history, places(receiver.url()))
    assert notifier.flush() == Flushed(failed=1)
    assert notifier.flush() == Flushed()


def test_one_address_that_is_down_does_not_hold_up_the_others(history: History, receiver: HttpReceiver) -> None:
    rule = NotificationRule(urls=["json://127.0.0.1:9/", receiver.url()])
    history.post(notices("1/1", "1/2"))
    assert Notifier(history, list(destinations([rule]))).flush() == Flushed(sent=1, failed=1)
    assert len(receiver.messages) == 1


def test_it_is_given_up_after_some_days(history: History, receiver: HttpReceiver) -> None:
    receiver.status = 500
    history.post(notices("1/1"))
    with history._store.writing() as connection:
        connection.exec_driver_sql("UPDATE aurum_outbox SET created_at = datetime('now', '-49 hours') || '.000000'")
    assert Notifier(history, places(receiver.url(), give_up_days=2)).flush() == Flushed(given_up=1)
    assert Notifier(history, places(receiver.url(), give_up_days=2)).flush() == Flushed()
    assert history.outbox(["1/1"], datetime.now(UTC) - timedelta(days=30)).given_up == 1


def test_many_senders_at_once_send_each_message_once(history: History) -> None:
    sent: list[str] = []
    guard = threading.Lock()

    def keep(_url: str, message: Message) -> None:
        with guard:
            sent.append(message.title)

    for number in range(12):
        history.post(notices("1/1", group=f"g{number}"))
    together = threading.Barrier(4)

    def flush() -> int:
        together.wait(30)
        return Notifier(history, places("json://127.0.0.1/"), sender=keep).flush().sent

    with ThreadPoolExecutor(4) as threads:
        counts = list(threads.map(lambda _: flush(), range(4)))
    assert sum(counts) == len(sent) == 12


def test_two_processes_flushing_at_once_send_once(desk: Desk, receiver: HttpReceiver) -> None:
    desk.tell({"urls": [receiver.url()]})
    with desk.history() as history:
        for number in range(6):
            history.post(notices("1/1", group=f"g{number}"))
    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(lambda _: ran(desk, FLUSHING), range(2)))
    assert [one.err for one in done] == ["", ""]
    assert sum(int(one.out) for one in done) == 6
    assert len(receiver.messages) == 6


def test_a_long_list_is_shortened(history: History, receiver: HttpReceiver) -> None:
    history.post(notices("1/1", count=500))
    assert Notifier(history, places(receiver.url())).flush() == Flushed(sent=1)
    assert receiver.titles == ["aurum: 500 failed"]
    assert receiver.bodies[0].count("it broke") == MOST_NOTICES
    assert f"and {500 - MOST_NOTICES} more" in receiver.bodies[0]


def test_what_is_for_another_fleet_is_left_to_it(history: History, receiver: HttpReceiver) -> None:
    history.post(notices("theirs/1"))
    assert Notifier(history, places(receiver.url())).flush() == Flushed()
    assert history.outbox(["1/1"], datetime.now(UTC)).strangers == ("theirs/1",)


def test_pruning_keeps_what_waits(history: History, receiver: HttpReceiver) -> None:
    history.post(notices("1/1"))
    history.post(notices("other/1", group="h"))
    assert Notifier(history, places(receiver.url())).flush().sent == 1
    assert history.prune(datetime.now(UTC) + timedelta(hours=1)).notices == 1
    assert history.outbox([], datetime.now(UTC)).waiting == 1


@pytest.mark.parametrize("status", [200, 500])
def test_no_secret_is_in_any_log_output_or_record(
    desk: Desk, receiver: HttpReceiver, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.status = status
    desk.tell({"urls": [receiver.url("hunter2"), "slack://hunter2AAA/hunter2BBB/hunter2CCCC@127.0.0.1"]})
    desk.damage()

    async def run() -> None:
        async with desk.service() as service:
            await service.execute_maintenance(None, "compaction", TRADES)
            caplog.records.append(logging.makeLogRecord({"msg": repr(service.fleet.config)}))

    asyncio.run(run())
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "was not sent to 1/2 (slack)" in told
    assert "hunter2" not in told
    assert "hunter2" not in repr(desk.rows())
    assert "hunter2" not in (desk.home / "history.db").read_bytes().decode("latin-1")
    for arguments in (["doctor"], ["doctor", "--output", "json"], ["history", "--output", "json"]):
        outcome = aurum(*arguments, AURUM_HOME=str(desk.home), AURUM_FLEET=str(desk.settings.fleet))
        assert "hunter2" not in outcome.out + outcome.err


def test_without_apprise_the_extra_is_named_and_all_waits(
    desk: Desk, receiver: HttpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    desk.tell({"urls": [receiver.url()]})
    desk.damage()

    async def run() -> None:
        async with desk.service() as service:
            await service.execute_maintenance(None, "compaction", TRADES)
            with pytest.raises(MissingExtraError, match="apprise") as missing:
                await service.flush_notifications()
            assert "aurum-orchestration[notify]" in str(missing.value.hint)
            (report,) = [one for one in await service.doctor() if one.target == "notifications"]
            assert "aurum-orchestration[notify]" in str(report.findings[0].hint)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "apprise", None)
        asyncio.run(run())
    assert "notifications wait" in caplog.text
    desk.make_due()
    with desk.history() as history:
        assert Notifier(history, desk.destinations()).flush() == Flushed(sent=1)


def test_doctor_tells_what_could_not_be_told(desk: Desk, receiver: HttpReceiver) -> None:
    receiver.status = 500
    desk.tell({"urls": [receiver.url()], "give_up_days": 1e-9}, {"name": "odd", "urls": ["no-such-thing://x"]})
    desk.damage()

    async def run() -> dict[str, str]:
        async with desk.service() as service:
            await service.execute_maintenance(None, "compaction", TRADES)
            (report,) = [one for one in await service.doctor() if one.target == "notifications"]
            return {one.check: f"{one.status} {one.detail}" for one in report.findings}

    found = asyncio.run(run())
    assert "failed apprise does not understand the URL of odd/1" in found["urls"]
    assert "warning" in found["given up"]
    assert "never sent" in found["given up"]
