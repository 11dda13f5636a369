"""Crashes and failed probes of a session, and how much of its history was dropped."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_COUNTS = ("probes", "history_dropped")


def upgrade() -> None:
    op.add_column("sessions", sa.Column("crashes", sa.Text()))
    for name in _COUNTS:
        op.add_column("sessions", sa.Column(name, sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    for name in (*reversed(_COUNTS), "crashes"):
        op.drop_column("sessions", name)
