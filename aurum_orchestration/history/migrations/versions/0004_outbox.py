"""Notices that wait to be sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "aurum_outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("group_id", sa.Text, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("about", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("due_at", TIME),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("claim", sa.Text),
        sa.Column("claimed_until", TIME),
        sa.Column("sent_at", TIME),
        sa.Column("error", sa.Text),
    )
    op.create_index("aurum_outbox_due", "aurum_outbox", ["due_at"])
    op.create_index("aurum_outbox_group", "aurum_outbox", ["group_id", "destination"])
    op.create_index("aurum_outbox_created", "aurum_outbox", ["created_at"])
