"""Vacuum on the embedded engine: files that no snapshot, ref or metadata refers to, found, set aside, then removed."""
