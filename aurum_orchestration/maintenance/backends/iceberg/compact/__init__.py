"""Compaction by the embedded engine: choose files, rewrite them through Arrow, verify, commit a `replace`."""
