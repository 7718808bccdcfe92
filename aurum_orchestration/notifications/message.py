"""Notices of one group as one message for people: plain text, what went wrong first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

MOST_NOTICES = 20
"""Notices spelled out in one message at most."""

_ORDER = ("failed", "cancelled", "completed", "skipped")
_KINDS: dict[str, Literal["failure", "warning", "success", "info"]] = {
    "failed": "failure",
    "cancelled": "warning",
    "completed": "success",
}


class Message(NamedTuple):
    """Title, body, and the kind that gives it its colour where a channel has any."""

    title: str
    body: str
    kind: Literal["failure", "warning", "success", "info"]


def compose(notices: Sequence[Mapping[str, str]]) -> Message:
    """One message of all the notices of a group."""
    ordered = sorted(notices, key=_rank)
    parts = [_paragraph(one) for one in ordered[:MOST_NOTICES]]
    if len(ordered) > MOST_NOTICES:
        parts.append(f"and {len(ordered) - MOST_NOTICES:,} more: aurum history shows them all")
    origins = list(dict.fromkeys(one["origin"] for one in ordered if one.get("origin")))
    if origins:
        parts.append("by " + "; ".join(origins[:5]) + (f" and {len(origins) - 5} more" if len(origins) > 5 else ""))
    worst = ordered[0].get("status", "") if ordered else ""
    return Message(_title(ordered), "\n\n".join(parts), _KINDS.get(worst, "info"))


def _title(ordered: Sequence[Mapping[str, str]]) -> str:
    if len(ordered) == 1:
        return f"aurum: {_what(ordered[0])}"
    counts = Counter(one.get("status", "") for one in ordered)
    return "aurum: " + ", ".join(f"{counts[status]:,} {status}" for status in (*_ORDER, "") if counts[status])


def _what(about: Mapping[str, str]) -> str:
    table = f" of {about['table']}" if about.get("table") else ""
    run = f"run {about['run_id'][:8]}: " if about.get("run_id") else ""
    return f"{run}{about.get('operation', 'maintenance')}{table} {about.get('status', '')}".rstrip()


def _paragraph(about: Mapping[str, str]) -> str:
    lines = [_what(about)]
    labels = {"what": "what", "do": "to do", "undo": "undo", "operation_id": "operation"}
    return "\n".join(lines + [f"  {label}: {about[name]}" for name, label in labels.items() if about.get(name)])


def _rank(about: Mapping[str, str]) -> tuple[int, str]:
    status = about.get("status", "")
    return (_ORDER.index(status) if status in _ORDER else len(_ORDER), about.get("table", ""))
