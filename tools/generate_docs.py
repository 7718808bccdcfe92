"""Writes the docs that are made from code; with --check says which ones no longer fit it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from aurum_orchestration.cli.reference import pages
from aurum_orchestration.fleet.schema import fleet_schema
from aurum_orchestration.maintenance.metrics import metrics_page

ROOT = Path(__file__).resolve().parent.parent


def generated() -> dict[str, str]:
    """Path of every generated page, and its text."""
    schema = json.dumps(fleet_schema(), indent=2, ensure_ascii=False) + "\n"
    return {"docs/metrics.md": metrics_page(), "docs/reference/fleet.schema.json": schema, **pages()}


def main() -> int:
    """Write or compare every page; 1 when one differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a page differs")
    check = parser.parse_args().check
    stale = []
    for page, text in generated().items():
        path = ROOT / page
        if path.exists() and path.read_text() == text:
            continue
        stale.append(page)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale:
        print(f"{'no longer fit the code' if check else 'written'}: {', '.join(stale)}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
