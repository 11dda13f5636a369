"""An index of the sessions in the queue that not every sandbox would do for."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_CHOOSY = sa.text(
    "state = 'queued' AND wanted = 'running' AND (wish IS NOT NULL OR crashes IS NOT NULL)"
)


def upgrade() -> None:
    op.create_index(
        "ix_sessions_choosy",
        "sessions",
        ["rank", "created_at", "id"],
        postgresql_where=_CHOOSY,
        sqlite_where=_CHOOSY,
    )


def downgrade() -> None:
    op.drop_index("ix_sessions_choosy", table_name="sessions")
