"""Numbers, times and states in the few characters a table cell has."""

from __future__ import annotations

from datetime import datetime

from rich.text import Text

from aurum_orchestration.maintenance.interfaces import MaintenanceStatus

BAR_CELLS = 5
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STATUS_STYLES = {
    MaintenanceStatus.COMPLETED: "green",
    MaintenanceStatus.PLANNED: "cyan",
    MaintenanceStatus.RUNNING: "cyan",
    MaintenanceStatus.SKIPPED: "dim",
    MaintenanceStatus.FAILED: "bold red",
    MaintenanceStatus.CANCELLED: "yellow",
}


def safe(text: str, *, one_line: bool = True) -> str:
    """``text`` with characters that would steer the terminal written as escapes (names come from catalogs)."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or (char == "\n" and not one_line) else char.encode("unicode_escape").decode()
        for char in text
    )


def count(number: float | None) -> str:
    """A whole number with thousands separated; ``-`` when not known."""
    return "-" if number is None else f"{number:,.0f}"


def size(number: float | None) -> str:
    """Bytes in the binary unit that leaves one to four digits; ``-`` when not known."""
    if number is None:
        return "-"
    value, unit = float(number), 0
    while abs(value) >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:,.0f} {_UNITS[unit]}" if unit == 0 or abs(value) >= 100 else f"{value:.1f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def when(moment: datetime) -> str:
    """A moment in the reader's time zone, to the minute."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def debt(score: float, *, unicode: bool = True) -> Text:
    """A debt score of 0 to 100 as number and bar, coloured by how bad it is."""
    share = min(max(score, 0.0), 100.0) / 100
    if unicode:
        eighths = round(share * BAR_CELLS * 8)
        bar = ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()).ljust(BAR_CELLS)
    else:
        bar = ("#" * round(share * BAR_CELLS)).ljust(BAR_CELLS)
    style = "red" if score >= 60 else "yellow" if score >= 20 else "green"
    return Text.assemble(f"{score:3.0f} ", (bar, style))


def status(value: MaintenanceStatus) -> Text:
    """A status in its colour."""
    return Text(str(value), style=_STATUS_STYLES.get(value, ""))
