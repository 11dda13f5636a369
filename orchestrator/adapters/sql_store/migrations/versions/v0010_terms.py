"""Each holder of a lease has a number, by which what it does can be told from a later holder's."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    term = sa.Column("term", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("leases", term)


def downgrade() -> None:
    op.drop_column("leases", "term")
