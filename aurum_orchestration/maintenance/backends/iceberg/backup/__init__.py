"""Backups as refs: the snapshot of main under a tag or branch of its own."""
