"""The operation log, the planner's facts and the leases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "aurum_operations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("operation_id", sa.Text, nullable=False, unique=True),
        sa.Column("table_id", sa.Text, nullable=False),
        sa.Column("backend", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("dry_run", sa.Boolean, nullable=False),
        sa.Column("backend_type", sa.Text),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("plan_id", sa.Text),
        sa.Column("steps", sa.Text),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("verification", sa.Text),
        sa.Column("problem", sa.Text),
        sa.Column("problem_type", sa.Text),
        sa.Column("warnings", sa.Text, nullable=False),
        sa.Column("undo", sa.Text),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("finished_at", TIME),
        sa.Column("seconds", sa.Float(53), nullable=False),
    )
    op.create_index("aurum_operations_started", "aurum_operations", ["started_at"])
    op.create_index("aurum_operations_table", "aurum_operations", ["table_id", "operation", "finished_at"])
    op.create_table(
        "aurum_facts",
        sa.Column("table_id", sa.Text, primary_key=True),
        sa.Column("operation", sa.Text, primary_key=True),
        sa.Column("last_finished", TIME),
        sa.Column("last_status", sa.Text),
        sa.Column("last_completed", TIME),
        sa.Column("consecutive_failures", sa.Integer, nullable=False),
        sa.Column("consecutive_no_gain", sa.Integer, nullable=False),
        sa.Column("seconds_per_gib", sa.Float(53)),
        sa.Column("engaged", sa.Boolean, nullable=False),
    )
    op.create_table(
        "aurum_leases",
        sa.Column("table_id", sa.Text, primary_key=True),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("operation_id", sa.Text, nullable=False),
        sa.Column("ttl_seconds", sa.Float(53), nullable=False),
        sa.Column("acquired_at", TIME, nullable=False),
        sa.Column("expires_at", TIME),
    )
