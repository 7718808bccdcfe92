"""Partition evolution by the embedded engine: commit a spec, then rewrite the files of older ones into it."""
