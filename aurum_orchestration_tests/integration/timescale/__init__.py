"""Hypertables of a real TimescaleDB."""
