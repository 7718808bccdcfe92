"""Materialized views, refreshed in the order of their dependencies."""
