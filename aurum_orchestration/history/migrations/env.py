"""Runs the migrations on the connection that ``history.migrate`` hands over, inside its transaction."""

from __future__ import annotations

from alembic import context

from aurum_orchestration.history.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
context.run_migrations()
