"""The code location of the fleet that the environment names.

Who builds definitions of other fleets takes ``build_definitions`` from where it is made: importing this loads a fleet.
"""

from aurum_orchestration import garbage
from aurum_orchestration.dagster_edge.build import build_definitions

__all__ = ["build_definitions", "defs"]

garbage.seldom_looked_for()

defs = build_definitions()
