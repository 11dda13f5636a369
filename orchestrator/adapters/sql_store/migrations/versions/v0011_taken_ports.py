"""Each host remembers the ports that other programs hold."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("hosts", sa.Column("taken_ports", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("hosts", "taken_ports")
