"""Retention of PostgreSQL tables by a time column."""
