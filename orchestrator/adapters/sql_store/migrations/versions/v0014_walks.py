"""Sessions remember what the walks of their public address have shown."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("walked", sa.Text))
    op.drop_column("sessions", "probes")


def downgrade() -> None:
    op.add_column("sessions", sa.Column("probes", sa.Integer, nullable=False, server_default="0"))
    op.drop_column("sessions", "walked")
