"""The health series."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "aurum_health",
        sa.Column("table_id", sa.Text, primary_key=True),
        sa.Column("at", TIME, primary_key=True),
        sa.Column("state_token", sa.Text, nullable=False),
        sa.Column("debt_score", sa.Float(53)),
        sa.Column("metrics", sa.Text, nullable=False),
    )
    op.create_index("aurum_health_at", "aurum_health", ["at"])
