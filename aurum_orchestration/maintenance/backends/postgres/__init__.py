"""PostgreSQL: one package per operation, and what they share."""
