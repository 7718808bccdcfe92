"""The code location of the fleet that the environment names.

Who builds definitions of other fleets takes ``build_definitions`` from where it is made: importing this loads a fleet.
"""

import gc

from aurum_orchestration.dagster_edge.build import build_definitions

__all__ = ["build_definitions", "defs"]

# definitions of ten thousand tables are no garbage: looking through them again and again, while they are made and
# in every tick of a sensor, took up to a third of the time
gc.set_threshold(100_000, 20, 100)

defs = build_definitions()
