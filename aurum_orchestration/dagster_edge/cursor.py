"""What a sensor remembers between ticks: for which state of a table it asked for a run.

Versioned JSON of a few bytes per table in need. A cursor that cannot be understood, or of another
version, counts as empty: run keys and the look at running runs then still prevent requests twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

VERSION = 1


@dataclass(frozen=True)
class Cursor:
    """``requested``: short hash of a table's id -> short hash of the state a run was requested for."""

    requested: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> Cursor:
        """The cursor written as ``text``; an empty one when there is none or nobody understands it."""
        try:
            data = json.loads(text or "")
            known = data["requested"] if data["v"] == VERSION else {}
            return cls({str(key): str(value) for key, value in known.items()})
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def __str__(self) -> str:
        return json.dumps({"v": VERSION, "requested": dict(self.requested)}, separators=(",", ":"), sort_keys=True)
