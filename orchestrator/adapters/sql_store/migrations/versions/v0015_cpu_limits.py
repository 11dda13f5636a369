"""Sandboxes say which CPU limit they have, hosts how many CPUs and whether they change limits."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_UNSETTLED = sa.text("(raised AND state = 'claimed') OR (NOT raised AND state = 'warm')")
_IN_PROGRESS = sa.text("state IN ('provisioning', 'generating', 'deploying')")


def upgrade() -> None:
    op.add_column(
        "sandboxes", sa.Column("raised", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.add_column("hosts", sa.Column("cpus", sa.Integer, nullable=False, server_default="0"))
    op.add_column("hosts", sa.Column("changes_cpus", sa.Boolean))
    op.create_index(
        "ix_sandboxes_cpus",
        "sandboxes",
        ["id"],
        postgresql_where=_UNSETTLED,
        sqlite_where=_UNSETTLED,
    )
    op.create_index(
        "ix_sessions_in_progress",
        "sessions",
        ["sandbox_id"],
        postgresql_where=_IN_PROGRESS,
        sqlite_where=_IN_PROGRESS,
    )


def downgrade() -> None:
    op.drop_index("ix_sessions_in_progress", table_name="sessions")
    op.drop_index("ix_sandboxes_cpus", table_name="sandboxes")
    op.drop_column("hosts", "changes_cpus")
    op.drop_column("hosts", "cpus")
    op.drop_column("sandboxes", "raised")
