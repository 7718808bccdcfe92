"""Aurum Orchestration: keeps every table of a data platform healthy, from Dagster and from the shell."""

__version__ = "0.1.0"
