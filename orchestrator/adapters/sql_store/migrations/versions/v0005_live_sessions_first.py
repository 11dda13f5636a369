"""An index of the sessions that haven't ended, for lists that begin with them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_LIVE = sa.text("state NOT IN ('destroyed', 'failed')")


def upgrade() -> None:
    op.create_index(
        "ix_sessions_live",
        "sessions",
        ["created_at", "id"],
        postgresql_where=_LIVE,
        sqlite_where=_LIVE,
    )


def downgrade() -> None:
    op.drop_index("ix_sessions_live", table_name="sessions")
