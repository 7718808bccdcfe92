"""``engine: auto``: which engine does an operation on a table, and why. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from aurum_orchestration.fleet.trino import TrinoKeys

GIB = 1024**3
TRINO_ABOVE_GIB: float = TrinoKeys.model_fields["trino_above_gib"].default
"""Above so much to rewrite Trino is taken unless the backend's ``trino_above_gib`` says otherwise.

Not a crossover: on one machine there is none, the embedded engine is faster at every size. It is what one machine
of two cores does in two hours, at the 100 GiB an hour that ``benchmarks.trino_compaction`` measured.
"""

EMBEDDED, TRINO = "pyiceberg", "trino"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known before choosing. ``rewrites``: bytes that the embedded engine would read and write anew.

    ``embedded_refuses`` and ``trino_refuses``: why that engine cannot do it to this table, None when it can.
    """

    rewrites: float = 0.0
    embedded_refuses: str | None = None
    trino_refuses: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine, and the reason as the end of a sentence."""

    engine: str
    reason: str


def choose(facts: Facts, above_gib: float = TRINO_ABOVE_GIB) -> Choice:
    """The embedded engine, which is faster on one machine, unless it cannot or there is too much for one machine.

    When neither can, the embedded engine is named: its refusal is told.
    """
    large = facts.rewrites > above_gib * GIB
    amount = f"{facts.rewrites / GIB:,.1f} GiB to rewrite"
    if facts.trino_refuses is not None:
        why = f"Trino cannot: {facts.trino_refuses}"
        return Choice(EMBEDDED, f"on the embedded engine, because {why}")
    if facts.embedded_refuses is not None:
        return Choice(TRINO, f"through Trino, because the embedded engine cannot: {facts.embedded_refuses}")
    if large:
        return Choice(TRINO, f"through Trino, because {amount} are above {above_gib:,.0f} GiB")
    return Choice(EMBEDDED, f"on the embedded engine, because {amount} are at most {above_gib:,.0f} GiB")
