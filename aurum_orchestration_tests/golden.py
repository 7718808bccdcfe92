"""Golden files: what a command prints, kept as a file next to the tests.

``AURUM_UPDATE_GOLDEN=1 python -m pytest aurum_orchestration_tests -k golden`` writes them anew;
read the diff before committing it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

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


def stable_text(text: str, *paths: Path) -> str:
    """Text output with what changes from run to run masked: times, ids, paths. Runs of blanks become two."""
    for path in paths:
        text = text.replace(str(path), "<home>")
    for pattern, mask in _VOLATILE:
        text = re.sub(pattern, mask, text)
    return re.sub(r" {2,}", "  ", text)


def stable_json(value: Any, *paths: Path) -> Any:
    """JSON output with the values of volatile keys masked, and paths and ids within texts."""
    if isinstance(value, dict):
        return {
            key: f"<{key}>" if key in _VOLATILE_KEYS and one is not None else stable_json(one, *paths)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [stable_json(one, *paths) for one in value]
    return stable_text(value, *paths) if isinstance(value, str) else value


_VOLATILE = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+00:00)?", "<time>"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>"),
    (r"\b[0-9a-f]{32}\b", "<operation-id>"),
    (r"\b\d{13,}\b", "<snapshot-id>"),
    (r"\b[0-9a-f]{16}\b", "<plan-id>"),
    (r"\b\d+(\.\d)? s\b", "<t> s"),
)
_VOLATILE_KEYS = {
    *("operation_id", "plan_id", "started_at", "finished_at", "seconds", "instance"),
    *("seconds_since_commit", "oldest_snapshot_seconds", "metadata_bytes", "manifest_bytes"),
}
