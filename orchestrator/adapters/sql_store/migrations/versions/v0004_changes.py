"""Changes of running apps; and the health, change, provider and summary of each version."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_BUNDLE_COLUMNS = (
    ("healthy", sa.Boolean(), sa.true()),
    ("change", sa.Integer(), "0"),
    ("provider", sa.Text(), ""),
    ("summary", sa.Text(), ""),
)
_OF_A_CHANGE = ("reservations", "usage")


def upgrade() -> None:
    op.add_column("sessions", sa.Column("turns", sa.Text()))
    op.add_column(
        "sessions", sa.Column("reused", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    for name, kind, default in _BUNDLE_COLUMNS:
        op.add_column("bundles", sa.Column(name, kind, server_default=default, nullable=False))
    for table in _OF_A_CHANGE:
        op.add_column(table, sa.Column("change", sa.Integer(), server_default="0", nullable=False))
    _make_changes()


def downgrade() -> None:
    op.drop_table("changes")
    for table in _OF_A_CHANGE:
        op.drop_column(table, "change")
    for name, _, _ in reversed(_BUNDLE_COLUMNS):
        op.drop_column("bundles", name)
    op.drop_column("sessions", "reused")
    op.drop_column("sessions", "turns")


def _make_changes() -> None:
    op.create_table(
        "changes",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("restores", sa.Integer()),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.Column("version", sa.Integer()),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("failure", sa.Text()),
        sa.Column("idempotency_key", sa.Text()),
        sa.PrimaryKeyConstraint("session_id", "number", name="pk_changes"),
        sa.UniqueConstraint(
            "session_id", "idempotency_key", name="uq_changes_session_id_idempotency_key"
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_changes_session_id", ondelete="CASCADE"
        ),
    )
