"""Parts of a benchmark in processes of their own: a child's peak memory starts from its parent's."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import Any


def in_new_process(module: str, *arguments: object) -> list[dict[str, Any]]:
    """The figures that a module of ``benchmarks`` prints when it is run with the arguments."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: list[dict[str, Any]] = json.loads(answer.stdout)
    return figures


def peak_mib() -> float:
    """The most memory that this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
