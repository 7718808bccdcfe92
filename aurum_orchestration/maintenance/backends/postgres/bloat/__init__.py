"""The report on bloat of PostgreSQL tables and indexes."""
