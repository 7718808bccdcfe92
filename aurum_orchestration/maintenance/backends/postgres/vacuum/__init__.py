"""Vacuum of PostgreSQL tables."""
