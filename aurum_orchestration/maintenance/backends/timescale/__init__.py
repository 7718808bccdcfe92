"""TimescaleDB: PostgreSQL whose tables may be hypertables."""
