"""The process that tests fork others from: it has imported what they run, so that one costs no start.

There is one such server per process of tests, and whoever names modules for it last replaces what others named: all
are named here.
"""

from __future__ import annotations

import multiprocessing

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        f"aurum_orchestration_tests.{module}"
        for module in (
            "faults.steps",
            "faults.writers",
            "integration.history.workers",
            "integration.postgres.test_rule_groups",
            "integration.timescale.test_killed",
            "integration.upkeep.victim",
        )
    ]
)
