"""Retention on the embedded engine: expiring snapshots, deleting what only they held, and rows past their time."""
