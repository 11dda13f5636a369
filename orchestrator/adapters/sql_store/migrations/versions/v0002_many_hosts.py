"""Many hosts: columns for SSH, placement and moving. Existing rows keep all their values."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_OPEN = "state = 'up' AND NOT cordoned AND drain = 'none' AND shortage = ''"
_HOST_COLUMNS = (
    ("drain", sa.Text(), "none"),
    ("host_key", sa.Text(), ""),
    ("machine_id", sa.Text(), ""),
    ("region", sa.Text(), ""),
    ("labels", sa.Text(), ""),
    ("image", sa.Text(), ""),
    ("shortage", sa.Text(), ""),
    ("starts", sa.Text(), ""),
    ("generation", sa.Integer(), "1"),
    ("state_since", _TIME, "1970-01-01 00:00:00.000000"),
    ("used", sa.Integer(), "0"),
)
_SANDBOX_COLUMNS = ("generation", "started_with")
_SESSION_COLUMNS = ("wish", "refused_by", "move")


def upgrade() -> None:
    _extend_hosts()
    _make_labels()
    for name in _SESSION_COLUMNS:
        op.add_column("sessions", sa.Column(name, sa.Text()))
    for name in _SANDBOX_COLUMNS:
        op.add_column(
            "sandboxes", sa.Column(name, sa.Integer(), server_default="1", nullable=False)
        )
    _partial("ix_sandboxes_creating", "sandboxes", ["host_id"], "state = 'creating'")
    _partial("ix_sandboxes_loose", "sandboxes", ["host_id"], "state IN ('broken', 'stopping')")


def downgrade() -> None:
    op.drop_index("ix_sandboxes_loose", "sandboxes")
    op.drop_index("ix_sandboxes_creating", "sandboxes")
    for name in reversed(_SANDBOX_COLUMNS):
        op.drop_column("sandboxes", name)
    for name in reversed(_SESSION_COLUMNS):
        op.drop_column("sessions", name)
    op.drop_table("host_labels")
    op.drop_index("uq_hosts_machine", "hosts")
    op.drop_index("ix_hosts_roomy", "hosts")
    op.add_column(
        "hosts", sa.Column("draining", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.execute("UPDATE hosts SET draining = (drain <> 'none')")
    for name, _, _ in reversed(_HOST_COLUMNS):
        op.drop_column("hosts", name)


def _extend_hosts() -> None:
    for name, kind, default in _HOST_COLUMNS:
        op.add_column("hosts", sa.Column(name, kind, server_default=default, nullable=False))
    op.execute("UPDATE hosts SET drain = 'wait' WHERE draining")
    op.execute("UPDATE hosts SET state_since = created_at")
    op.execute(
        "UPDATE hosts SET used = (SELECT count(*) FROM sandboxes"
        " WHERE sandboxes.host_id = hosts.id AND sandboxes.state <> 'gone')"
    )
    op.drop_column("hosts", "draining")
    _partial("ix_hosts_roomy", "hosts", ["id"], f"{_OPEN} AND used < slots")
    _partial("uq_hosts_machine", "hosts", ["machine_id"], "machine_id <> ''", unique=True)


def _make_labels() -> None:
    op.create_table(
        "host_labels",
        sa.Column("host_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["host_id"], ["hosts.id"], name="fk_host_labels_host_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("host_id", "key", name="pk_host_labels"),
    )
    op.create_index("ix_host_labels_value", "host_labels", ["key", "value", "host_id"])


def _partial(name: str, table: str, columns: list[str], where: str, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(
        name, table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition
    )
