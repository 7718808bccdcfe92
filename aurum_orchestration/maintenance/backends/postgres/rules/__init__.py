"""Cleanup, logs and sessions on PostgreSQL: rule groups carried out."""
