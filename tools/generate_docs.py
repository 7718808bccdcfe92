"""Writes the docs that are made from code; with --check says which ones no longer fit it."""

from __future__ import annotations

import argparse
import contextlib
import io
import runpy
import sys
from pathlib import Path

from aurum_orchestration.cli import reference

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "docs/metrics.md": "aurum_orchestration.maintenance.metrics",
    "docs/reference/fleet.schema.json": "aurum_orchestration.fleet.schema",
}
"""Page -> the module that prints it when run."""


def printed(module: str) -> str:
    """What the module prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        runpy.run_module(module, run_name="__main__")
    return output.getvalue()


def main() -> int:
    """Write or compare every page; 1 when one differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a page differs")
    check = parser.parse_args().check
    stale = []
    texts = {page: printed(module) for page, module in PAGES.items()} | reference.pages()
    for page, text in texts.items():
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
