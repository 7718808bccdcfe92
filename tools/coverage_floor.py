"""Fails when too few lines are covered: overall, or in one package. Reads what `make test` left in .coverage."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import coverage

ROOT = "aurum_orchestration"
FLOORS = {
    "": 90,
    "maintenance": 85,
    "history": 95,
    "fleet": 95,
    "dagster_edge": 92,
    "cli": 95,
    "local": 95,
}
"""Per cent of lines that tests must run, by package; the empty name is the whole."""


def covered(report: coverage.Coverage, package: str) -> float:
    """Per cent of the package's lines that ran."""
    pattern = str(Path(ROOT, package, "*")) if package else str(Path(ROOT, "*"))
    return report.report(include=[pattern], file=io.StringIO())


def main() -> int:
    """Print every floor; 1 when one is not reached."""
    report = coverage.Coverage()
    if list(Path().glob(".coverage.*")):
        report.combine()
    report.load()
    report.report(show_missing=True, skip_covered=True)
    failed = False
    for package, floor in FLOORS.items():
        share = covered(report, package)
        failed |= share < floor
        verdict = "FAIL" if share < floor else "ok"
        print(f"{verdict:4}  {package or 'all of it':14} {share:5.1f} % of lines, floor {floor} %")
    if failed:
        print("Too few lines are run by tests. The table above lists the missing ones.", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
