"""Compare the last benchmark with the stored one: only ratios, which do not depend on the machine's speed.

Exit code 1 when a ratio is worse than the stored one by more than both spreads together, or misses a goal
that the stored one reached.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.run import RESULTS, met


def ratios(path: Path) -> dict[str, dict[str, Any]]:
    """The figures of a result whose unit is a ratio, by name."""
    return {one["name"]: one for one in json.loads(path.read_text())["figures"] if one["unit"] == "ratio"}


def worse(now: dict[str, Any], then: dict[str, Any]) -> bool:
    """True when ``now`` is worse than ``then`` beyond their spreads, or lost its goal."""
    loss = now["value"] - then["value"]
    if now.get("better") == "higher":
        loss = -loss
    return loss > now.get("spread", 0) + then.get("spread", 0) or (met(then) is True and met(now) is False)


def main() -> int:
    """Print each ratio and say whether any is worse."""
    latest, stored = RESULTS / "latest.json", RESULTS / "stored.json"
    for path, command in ((latest, "make bench"), (stored, "python -m benchmarks.run --keep")):
        if not path.exists():
            print(f"{path} is missing: run `{command}` first.", file=sys.stderr)
            return 2
    now, then = ratios(latest), ratios(stored)
    bad = 0
    for name in sorted(then):
        if name not in now:
            print(f"{name}: not measured this time")
            continue
        verdict = "WORSE" if worse(now[name], then[name]) else "ok"
        bad += verdict == "WORSE"
        print(f"{name}: {now[name]['value']:g} now, {then[name]['value']:g} stored: {verdict}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
