"""The first schema: hosts, sessions, sandboxes, and their records.

The tables are written out, not imported from schema.py: a migration must create what it created at
its release, even if schema.py has changed since.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_LIVE_SESSION = "state NOT IN ('destroyed', 'failed')"
_LIVE_SANDBOX = "state <> 'gone'"


def upgrade() -> None:
    _make_hosts()
    _make_sessions()
    _make_events()
    _make_sandboxes()
    _make_bundles()
    _make_logs()
    _make_api_keys()
    _make_audit()
    _make_leases()


def downgrade() -> None:
    for table in (
        "leases",
        "audit",
        "api_keys",
        "logs",
        "bundles",
        "sandboxes",
        "events",
        "sessions",
        "hosts",
    ):
        op.drop_table(table)


def _partial(name: str, table: str, columns: list[str], where: str, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(
        name, table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition
    )


def _make_hosts() -> None:
    op.create_table(
        "hosts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("docker_url", sa.Text(), nullable=False),
        sa.Column("publish_address", sa.Text(), nullable=False),
        sa.Column("agent_folder", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("cordoned", sa.Boolean(), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("seen_at", _TIME),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("port_cursor", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_hosts"),
        sa.UniqueConstraint("name", name="uq_hosts_name"),
    )


def _make_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("rank", sa.SmallInteger(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("template", sa.Text()),
        sa.Column("bundle", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("wanted", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text()),
        sa.Column("sandbox_id", sa.Text()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("report", sa.Text()),
        sa.Column("failure", sa.Text()),
        sa.Column("ttl_s", sa.Integer(), nullable=False),
        sa.Column("due_at", _TIME, nullable=False),
        sa.Column("deadline_at", _TIME),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("history", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("idempotency_fingerprint", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.UniqueConstraint(
            "user_id", "idempotency_key", name="uq_sessions_user_id_idempotency_key"
        ),
        sa.UniqueConstraint("slug", name="uq_sessions_slug"),
    )
    _index_sessions()


def _index_sessions() -> None:
    _partial("ix_sessions_active", "sessions", ["user_id"], _LIVE_SESSION)
    _partial("ix_sessions_bundle", "sessions", ["bundle"], _LIVE_SESSION)
    op.create_index("ix_sessions_created", "sessions", ["created_at", "id"])
    _partial("ix_sessions_due", "sessions", ["due_at"], _LIVE_SESSION)
    _partial(
        "ix_sessions_expiry",
        "sessions",
        ["expires_at"],
        "state NOT IN ('destroyed', 'failed') AND wanted = 'running'",
    )
    _partial(
        "ix_sessions_queue",
        "sessions",
        ["rank", "created_at", "id", "due_at"],
        "state = 'queued' AND wanted = 'running'",
    )
    op.create_index("ix_sessions_state", "sessions", ["state", "updated_at"])
    op.create_index("ix_sessions_user", "sessions", ["user_id", "created_at", "id"])


def _make_events() -> None:
    op.create_table(
        "events",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_events_session_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", "seq", name="pk_events"),
    )


def _make_sandboxes() -> None:
    op.create_table(
        "sandboxes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("container_id", sa.Text()),
        sa.Column("agent_seen_at", _TIME),
        sa.Column("routed", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("state_since", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name="fk_sandboxes_host_id"),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_sandboxes_session_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_sandboxes"),
    )
    _partial(
        "ix_sandboxes_claimable", "sandboxes", ["created_at", "id"], "state = 'warm' AND routed"
    )
    _partial("ix_sandboxes_gone", "sandboxes", ["state_since"], "state = 'gone'")
    _partial("ix_sandboxes_live", "sandboxes", ["host_id", "state"], _LIVE_SANDBOX)
    op.create_index("ix_sandboxes_session", "sandboxes", ["session_id"])
    _partial(
        "ix_sandboxes_unsettled",
        "sandboxes",
        ["id"],
        "(routed AND state NOT IN ('creating', 'warm', 'claimed'))"
        " OR (NOT routed AND state IN ('creating', 'warm', 'claimed'))",
    )
    _partial("uq_sandboxes_port", "sandboxes", ["host_id", "port"], _LIVE_SANDBOX, unique=True)
    _partial("uq_sandboxes_slug", "sandboxes", ["slug"], _LIVE_SANDBOX, unique=True)


def _make_bundles() -> None:
    op.create_table(
        "bundles",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("delete_after", _TIME),
        sa.PrimaryKeyConstraint("session_id", "version", name="pk_bundles"),
    )
    _partial("ix_bundles_expiry", "bundles", ["delete_after"], "delete_after IS NOT NULL")
    op.create_index("ix_bundles_sha256", "bundles", ["sha256"])


def _make_logs() -> None:
    op.create_table(
        "logs",
        sa.Column("id", _SERIAL, nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_logs_session_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_logs"),
    )
    op.create_index("ix_logs_session", "logs", ["session_id", "id"])


def _make_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("revoked_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("key_hash", name="uq_api_keys_key_hash"),
    )
    _partial("uq_api_keys_name", "api_keys", ["name"], "revoked_at IS NULL", unique=True)


def _make_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", _SERIAL, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )


def _make_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
