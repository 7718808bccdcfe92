"""What people are told, over real HTTP and SMTP."""

from __future__ import annotations

import asyncio

import pytest

from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration_tests.integration.notifications.conftest import TRADES, Desk
from aurum_orchestration_tests.servers.receivers import HttpReceiver, SmtpReceiver


async def test_a_failure_is_told_with_what_to_do(desk: Desk, receiver: HttpReceiver) -> None:
    desk.tell({"urls": [receiver.url()]})
    desk.damage()
    async with desk.service() as service:
        result = await service.execute_maintenance(None, "compaction", TRADES)
    assert result.status is MaintenanceStatus.FAILED
    assert result.problem is not None
    assert receiver.titles == [f"aurum: compaction of {TRADES} failed"]
    (body,) = receiver.bodies
    assert str(result.problem.hint) in body
    assert str(result.problem.detail)[:60] in body
    assert result.operation_id in body
    assert receiver.messages[0]["type"] == "failure"


async def test_completion_is_told_only_to_who_asked_for_it(desk: Desk, receiver: HttpReceiver) -> None:
    desk.tell({"urls": [receiver.url()]}, {"name": "all", "urls": [receiver.url()], "on": ["failed", "completed"]})
    async with desk.service() as service:
        (done,) = await service.maintain([TRADES])
    assert done.status is MaintenanceStatus.COMPLETED
    assert receiver.titles == [f"aurum: compaction of {TRADES} completed"]
    assert f"undo: {done.undo}" in receiver.bodies[0]
    assert [row["destination"] for row in desk.rows()] == ["all/1"]


async def test_a_batch_is_one_message_that_names_what_went_wrong_first(desk: Desk, receiver: HttpReceiver) -> None:
    desk.tell({"urls": [receiver.url()], "on": ["failed", "completed"]})
    desk.damage("curves")
    low = {"min_input_files": 2}
    async with desk.service() as service:
        await service.execute_batch_maintenance(
            [
                {"operation_type": "compaction", "target_table": TRADES},
                {"operation_type": "compaction", "target_table": "lake.market.curves", "parameters": low},
                {"operation_type": "compaction", "target_table": "lake.market.gone"},
            ]
        )
    assert receiver.titles == ["aurum: 2 failed, 1 completed"]
    (body,) = receiver.bodies
    order = [body.index(f"lake.market.{name} ") for name in ("curves", "gone", "trades")]
    assert order == sorted(order)


async def test_who_leaves_a_stream_early_is_told_of_what_ended(desk: Desk, receiver: HttpReceiver) -> None:
    desk.tell({"urls": [receiver.url()], "on": ["completed", "failed"]})
    async with desk.service() as service:
        ended = service.stream_batch_maintenance([{"operation_type": "compaction", "target_table": TRADES}])
        async for _ in ended:
            break
        await ended.aclose()
        await service.flush_notifications()
    assert receiver.titles == [f"aurum: compaction of {TRADES} completed"]


async def test_rules_choose_tables_and_operations(desk: Desk, receiver: HttpReceiver) -> None:
    desk.tell(
        {"urls": [receiver.url()], "on": ["completed"], "tables": ["lake.other.*"]},
        {"urls": [receiver.url()], "on": ["completed"], "operations": ["vacuum"]},
        {"urls": [receiver.url()], "on": ["completed"], "tables": ["lake.market.*"], "operations": ["compaction"]},
    )
    async with desk.service() as service:
        await service.maintain([TRADES])
    assert [row["destination"] for row in desk.rows()] == ["3/1"]
    assert len(receiver.messages) == 1


async def test_a_table_that_cannot_be_measured_is_told(desk: Desk, receiver: HttpReceiver) -> None:
    desk.tell({"urls": [receiver.url()]})
    for manifest in (desk.home / "warehouse" / "market" / "curves" / "metadata").glob("*.avro"):
        manifest.unlink()
    async with desk.service() as service:
        results = await service.maintain(["lake.market.curves"])
    assert [result.status for result in results] == [MaintenanceStatus.FAILED]
    assert "lake.market.curves failed" in receiver.titles[0]


async def test_a_dry_run_tells_nobody_and_writes_nothing(desk: Desk, receiver: HttpReceiver) -> None:
    desk.tell({"urls": [receiver.url()], "on": ["failed", "completed", "skipped", "cancelled"]})
    desk.damage()
    async with desk.service() as service:
        await service.maintain(dry_run=True)
        await service.execute_maintenance(None, "compaction", "lake.market.gone", dry_run=True)
    assert receiver.messages == []
    assert not (desk.home / "history.db").exists()


async def test_a_mail_says_the_same(desk: Desk, mailbox: SmtpReceiver) -> None:
    desk.tell({"urls": [f"mailto://127.0.0.1:{mailbox.port}?from=aurum@example.com&to=ops@example.com&mode=insecure"]})
    desk.damage()
    async with desk.service() as service:
        result = await service.execute_maintenance(None, "compaction", TRADES)
    (mail,) = mailbox.mails
    assert mail["Subject"] == f"aurum: compaction of {TRADES} failed"
    text = mail.get_body(("plain", "html"))
    assert text is not None
    assert result.operation_id in text.get_content()


async def test_a_cancelled_run_is_told_by_whoever_comes_next(desk: Desk, receiver: HttpReceiver) -> None:
    desk.tell({"urls": [receiver.url()], "on": ["cancelled"]})
    async with desk.service() as service:
        loop = asyncio.get_running_loop()

        def stop(*_: object) -> None:
            loop.call_soon_threadsafe(running.cancel)

        running = asyncio.create_task(service.maintain([TRADES], progress=stop))
        with pytest.raises(asyncio.CancelledError):
            await running
        assert receiver.messages == []
        assert (await service.flush_notifications()).sent == 1
    assert receiver.titles == [f"aurum: compaction of {TRADES} cancelled"]
