"""`make demo`, `make demo-trino`: prepares the stack, tells the story, explains what went wrong if something did."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from aurum_orchestration.errors import AurumError
from aurum_orchestration.local.stack import Stack


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when it did what it promises, 1 with an explanation when not, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="make demo", description="Compact a lake of real flights through Dagster.")
    parser.add_argument("--days", type=int, default=366, help="days of 2013 to load (default: the whole year)")
    parser.add_argument("--picture", type=Path, help="also write the result to this file, as an SVG")
    parser.add_argument("--through-trino", action="store_true", help="make demo-trino: both engines, side by side")
    given = parser.parse_args(arguments)
    stack = Stack(Path.cwd(), through_trino=given.through_trino)
    again = "make demo-trino" if given.through_trino else "make demo"
    try:
        stack.prepare()
        # reads the environment that prepare has set
        from aurum_orchestration.local import ops_story
        from aurum_orchestration.local.story import Story

        with Story(stack) as story:
            story.tell(days=given.days, picture=given.picture)
        if not given.through_trino:
            ops_story.tell(stack, given.days)
    except KeyboardInterrupt:
        return _say(f"interrupted; the next '{again}' starts anew", code=130)
    except AurumError as error:
        return _say(f"The demo failed: {error.detail}\n{error.hint or ''}".rstrip())
    except Exception as error:
        log = stack.home / "demo.log"
        log.write_text(traceback.format_exc())
        return _say(f"The demo failed: {type(error).__name__}: {error}\nThe stack trace is in {log}.")
    return 0


def _say(text: str, code: int = 1) -> int:
    print(f"\n{text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
