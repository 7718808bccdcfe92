from __future__ import annotations

import io

from rich.console import Console

from aurum_orchestration.cli.activity import Activity
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, MaintenanceResult, MaintenanceStatus

REQUEST = MaintenanceConfig(operation_type="compaction", target_table="lake.market.trades")


def shown(*, terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, color_system=None, width=120)
    with Activity(console, "Maintaining tables") as activity:
        activity.progress(REQUEST, 0, 4, "steps")
        activity.progress(REQUEST, 1024, 4096, "bytes")
        activity.progress(REQUEST, 1, 4, "steps")
        refresh(activity)
        activity.ended(MaintenanceResult(config=REQUEST, status=MaintenanceStatus.COMPLETED))
        refresh(activity)
    return stream.getvalue()


def refresh(activity: Activity) -> None:
    if activity._bars is not None:
        activity._bars.refresh()


def test_a_terminal_sees_each_table_its_steps_and_what_has_ended() -> None:
    text = shown(terminal=True)
    assert "lake.market.trades compaction" in text
    assert "1 of 4 steps, 1.0 KiB of 4.0 KiB" in text
    assert "1 done" in text
    assert "lake.market.trades" not in text.rpartition("1 done")[2]


def test_nothing_is_shown_without_a_terminal() -> None:
    assert shown(terminal=False).strip() == ""
