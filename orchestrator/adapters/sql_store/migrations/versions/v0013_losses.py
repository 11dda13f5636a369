"""Sandboxes say whether their host ended them, and hosts and sessions remember losses."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "sandboxes",
        sa.Column("ended_by_host", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.add_column("sessions", sa.Column("lost_on", sa.Text))
    op.add_column("hosts", sa.Column("losses", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("hosts", "losses")
    op.drop_column("sessions", "lost_on")
    op.drop_column("sandboxes", "ended_by_host")
