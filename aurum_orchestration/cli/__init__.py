"""The ``aurum`` command: the same service that Dagster calls, from a shell. Holds no rule of its own."""
