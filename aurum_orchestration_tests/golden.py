"""Golden files: what a command prints, kept as a file next to the tests.

``AURUM_UPDATE_GOLDEN=1 python -m pytest aurum_orchestration_tests -k golden`` writes them anew;
read the diff before committing it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"
UPDATE = "AURUM_UPDATE_GOLDEN"


def assert_golden(name: str, text: str) -> None:
    """``text`` equals the golden file ``name``; with AURUM_UPDATE_GOLDEN=1 the file is written instead."""
    path = GOLDEN / name
    if os.environ.get(UPDATE) == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    assert path.exists(), f"no golden file {path.name}: run with {UPDATE}=1"
    assert text == path.read_text(encoding="utf-8"), f"differs from {path.name}; run with {UPDATE}=1 if meant"


def without_volatile(text: str, *paths: Path) -> str:
    """``text`` with what changes from run to run (times, ids, sizes, paths) masked, widths kept where they align."""
    for path in paths:
        text = text.replace(str(path), "<home>")
    for pattern, mask in _VOLATILE:
        text = re.sub(pattern, lambda found, mask=mask: mask.ljust(len(found.group())), text)  # type: ignore[misc]
    return text


_VOLATILE = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+00:00)?", "<time>"),
    (r"\b[0-9a-f]{32}\b", "<operation-id>"),
    (r"\b[0-9a-f]{16}\b", "<plan-id>"),
    (r"[ \d.,]{4}\d (B|KiB|MiB)\b", "<size>"),
    (r" *\d+(\.\d)? s\b", " <t>"),
)
