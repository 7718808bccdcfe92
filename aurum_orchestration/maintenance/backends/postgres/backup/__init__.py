"""Backups of a PostgreSQL database: dumped, verified, published whole, and pruned."""
