"""Tables and indexes as SQLAlchemy metadata. Every module of this package uses it.

The migrations create the same tables step by step; a contract test compares the two. The conditions
of partial indexes are literal text. The queries use the same text: neither database uses a partial
index if the condition contains a bind parameter.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Index, MetaData, Table, UniqueConstraint

from orchestrator.adapters.sql_store.column_types import FreeText, UtcTime

SESSION_LIVE = "state NOT IN ('destroyed', 'failed')"
SESSION_ENDED = "state IN ('destroyed', 'failed')"
SESSION_WANTED = "wanted = 'running'"
SESSION_QUEUED = "state = 'queued' AND wanted = 'running'"
SESSION_IN_PROGRESS = "state IN ('provisioning', 'generating', 'deploying')"
SESSION_CHOOSY = f"{SESSION_QUEUED} AND (wish IS NOT NULL OR crashes IS NOT NULL)"
# Hosts that take placements and have a slot; the same as host.accepts_placements and load.free.
HOST_OPEN = "state = 'up' AND NOT cordoned AND drain = 'none' AND shortage = ''"
HOST_STAYS = "drain <> 'leave'"
HOST_ROOMY = f"{HOST_OPEN} AND used < slots"
SANDBOX_LIVE = "state <> 'gone'"
SANDBOX_GONE = "state = 'gone'"
SANDBOX_CREATING = "state = 'creating'"
SANDBOX_BROKEN_OR_STOPPING = "state IN ('broken', 'stopping')"
SANDBOX_CLAIMABLE = "state = 'warm' AND routed"
# The `routed` flag doesn't match the state: the route has to be published or withdrawn.
# Written out, because for `routed <> (state IN ...)` PostgreSQL expects nearly all rows to match
# and scans the table.
SANDBOX_UNSETTLED = (
    "(routed AND state NOT IN ('creating', 'warm', 'claimed'))"
    " OR (NOT routed AND state IN ('creating', 'warm', 'claimed'))"
)
# The CPU limit may be the wrong one: written out for the same reason.
SANDBOX_CPUS_UNSETTLED = "(raised AND state = 'claimed') OR (NOT raised AND state = 'warm')"


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

# A key that grows with every row. SQLite generates it only for INTEGER columns.
_Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    condition = sa.text(where)
    return Index(name, *columns, unique=unique, postgresql_where=condition, sqlite_where=condition)


hosts = Table(
    "hosts",
    metadata,
    Column("id", sa.Text, primary_key=True),
    Column("name", sa.Text, nullable=False, unique=True),
    Column("docker_url", sa.Text, nullable=False),
    Column("publish_address", sa.Text, nullable=False),
    Column("agent_folder", sa.Text, nullable=False),
    Column("state", sa.Text, nullable=False),
    Column("cordoned", sa.Boolean, nullable=False),
    Column("slots", sa.Integer, nullable=False),
    Column("reason", FreeText, nullable=False),
    Column("seen_at", UtcTime),
    Column("created_at", UtcTime, nullable=False),
    # The port assigned last. Only the store uses it: no part of the Host value.
    Column("port_cursor", sa.Integer, nullable=False, server_default="0"),
    Column("drain", sa.Text, nullable=False, server_default="none"),
    Column("host_key", sa.Text, nullable=False, server_default=""),
    Column("machine_id", sa.Text, nullable=False, server_default=""),
    Column("region", sa.Text, nullable=False, server_default=""),
    Column("labels", sa.Text, nullable=False, server_default=""),  # JSON; queries use host_labels
    Column("image", sa.Text, nullable=False, server_default=""),
    Column("shortage", FreeText, nullable=False, server_default=""),
    Column("starts", sa.Text, nullable=False, server_default=""),  # JSON, see codec
    Column("generation", sa.Integer, nullable=False, server_default="1"),
    Column("state_since", UtcTime, nullable=False, server_default="1970-01-01 00:00:00.000000"),
    # The number of sandboxes that aren't GONE. Kept up to date, so that placements needn't count.
    # Only the store uses it: no part of the Host value.
    Column("used", sa.Integer, nullable=False, server_default="0"),
    Column("taken_ports", sa.Text, nullable=False, server_default=""),  # JSON, see codec
    Column("losses", sa.Text, nullable=False, server_default=""),  # JSON, see codec
    Column("cpus", sa.Integer, nullable=False, server_default="0"),
    Column("changes_cpus", sa.Boolean),
    # Placements read a few entries of this index, from a random id on, and not the whole pool.
    _partial("ix_hosts_roomy", "id", where=HOST_ROOMY),
    _partial("uq_hosts_machine", "machine_id", where="machine_id <> ''", unique=True),
    # Two machines at one endpoint would serve each other's apps. A host that leaves serves none.
    _partial("uq_hosts_publish_address", "publish_address", where=HOST_STAYS, unique=True),
)

host_labels = Table(
    "host_labels",
    metadata,
    Column("host_id", sa.Text, ForeignKey(hosts.c.id, ondelete="CASCADE"), primary_key=True),
    Column("key", sa.Text, primary_key=True),
    Column("value", sa.Text, nullable=False),
    Index("ix_host_labels_value", "key", "value", "host_id"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", sa.Text, primary_key=True),
    Column("user_id", sa.Text, nullable=False),
    Column("tier", sa.Text, nullable=False),
    Column("rank", sa.SmallInteger, nullable=False),  # the tier's rank; orders the queue
    Column("prompt", FreeText, nullable=False),
    Column("template", sa.Text),
    Column("bundle", sa.Text),
    Column("state", sa.Text, nullable=False),
    Column("wanted", sa.Text, nullable=False),
    # Unique: two sessions with one public name would show one user's app to another user.
    Column("slug", sa.Text, unique=True),
    # No foreign key: sandboxes refer to sessions already, and rows in a cycle can't be deleted.
    Column("sandbox_id", sa.Text),
    Column("attempt", sa.Integer, nullable=False),
    Column("version", sa.Integer, nullable=False),
    Column("report", sa.Text),  # JSON, see codec
    Column("failure", sa.Text),  # JSON, see codec
    Column("ttl_s", sa.Integer, nullable=False),
    Column("due_at", UtcTime, nullable=False),
    Column("deadline_at", UtcTime),
    Column("expires_at", UtcTime, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    # JSON, see codec. It repeats the end of the events table, so that one read gets the whole
    # session.
    Column("history", sa.Text, nullable=False),
    Column("revision", sa.Integer, nullable=False),
    Column("idempotency_key", FreeText),
    Column("idempotency_fingerprint", sa.Text),
    Column("wish", sa.Text),  # JSON, see codec; also the next three
    Column("refused_by", sa.Text),
    Column("move", sa.Text),
    Column("turns", sa.Text),
    Column("reused", sa.Boolean, nullable=False, server_default=sa.false()),
    Column("crashes", sa.Text),  # JSON, see codec
    Column("history_dropped", sa.Integer, nullable=False, server_default="0"),
    Column("lost_on", sa.Text),
    Column("walked", sa.Text),  # JSON, see codec
    UniqueConstraint("user_id", "idempotency_key"),
    Index("ix_sessions_user", "user_id", "created_at", "id"),
    Index("ix_sessions_created", "created_at", "id"),
    # For `counts`, which reads only the index, and `prune`.
    Index("ix_sessions_state", "state", "updated_at"),
    _partial("ix_sessions_due", "due_at", where=SESSION_LIVE),
    _partial("ix_sessions_expiry", "expires_at", where=f"{SESSION_LIVE} AND {SESSION_WANTED}"),
    _partial("ix_sessions_queue", "rank", "created_at", "id", "due_at", where=SESSION_QUEUED),
    _partial("ix_sessions_choosy", "rank", "created_at", "id", where=SESSION_CHOOSY),
    _partial("ix_sessions_in_progress", "sandbox_id", where=SESSION_IN_PROGRESS),
    _partial("ix_sessions_active", "user_id", where=SESSION_LIVE),
    _partial("ix_sessions_live", "created_at", "id", where=SESSION_LIVE),
    _partial("ix_sessions_bundle", "bundle", where=SESSION_LIVE),
)

# Changes that users ask of running apps. `sessions.turns` says which change is next.
changes = Table(
    "changes",
    metadata,
    Column("session_id", sa.Text, ForeignKey(sessions.c.id, ondelete="CASCADE"), primary_key=True),
    Column(
        "number", sa.Integer, primary_key=True, autoincrement=False
    ),  # counts from 1 in each session
    Column("text", FreeText, nullable=False),
    Column("restores", sa.Integer),
    Column("created_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("version", sa.Integer),
    Column("summary", FreeText, nullable=False),
    Column("failure", sa.Text),  # JSON, see codec
    Column("idempotency_key", FreeText),
    UniqueConstraint("session_id", "idempotency_key"),
)

events = Table(
    "events",
    metadata,
    Column("session_id", sa.Text, ForeignKey(sessions.c.id, ondelete="CASCADE"), primary_key=True),
    Column(
        "seq", sa.Integer, primary_key=True, autoincrement=False
    ),  # counts from 1 in each session
    Column("at", UtcTime, nullable=False),
    Column("state", sa.Text, nullable=False),
    Column("progress", sa.Integer, nullable=False),
    Column("message", FreeText, nullable=False),
)

sandboxes = Table(
    "sandboxes",
    metadata,
    Column("id", sa.Text, primary_key=True),
    Column("host_id", sa.Text, ForeignKey(hosts.c.id), nullable=False),
    # If the session's record is pruned, the sandbox stays, without a session. The diagnosis then
    # finds it.
    Column("session_id", sa.Text, ForeignKey(sessions.c.id, ondelete="SET NULL")),
    Column("state", sa.Text, nullable=False),
    Column("slug", sa.Text, nullable=False),
    Column("port", sa.Integer, nullable=False),
    Column("image", sa.Text, nullable=False),
    Column("container_id", sa.Text),
    Column("agent_seen_at", UtcTime),
    Column("routed", sa.Boolean, nullable=False),
    Column("reason", FreeText, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("state_since", UtcTime, nullable=False),
    Column("generation", sa.Integer, nullable=False, server_default="1"),
    Column("started_with", sa.Integer, nullable=False, server_default="1"),
    Column("ended_by_host", sa.Boolean, nullable=False, server_default=sa.false()),
    Column("raised", sa.Boolean, nullable=False, server_default=sa.false()),
    Index("ix_sandboxes_session", "session_id"),
    _partial("uq_sandboxes_port", "host_id", "port", where=SANDBOX_LIVE, unique=True),
    _partial("uq_sandboxes_slug", "slug", where=SANDBOX_LIVE, unique=True),
    _partial("ix_sandboxes_live", "host_id", "state", where=SANDBOX_LIVE),
    _partial("ix_sandboxes_claimable", "created_at", "id", where=SANDBOX_CLAIMABLE),
    _partial("ix_sandboxes_unsettled", "id", where=SANDBOX_UNSETTLED),
    _partial("ix_sandboxes_cpus", "id", where=SANDBOX_CPUS_UNSETTLED),
    _partial("ix_sandboxes_creating", "host_id", where=SANDBOX_CREATING),
    _partial("ix_sandboxes_loose", "host_id", where=SANDBOX_BROKEN_OR_STOPPING),
    _partial("ix_sandboxes_gone", "state_since", where=SANDBOX_GONE),
)

bundles = Table(
    "bundles",
    metadata,
    # No foreign key: a bundle outlives the record of its session.
    Column("session_id", sa.Text, primary_key=True),
    Column("version", sa.Integer, primary_key=True, autoincrement=False),
    Column("sha256", sa.Text, nullable=False, index=True),
    Column("size_bytes", sa.Integer, nullable=False),
    Column("kind", sa.Text, nullable=False),
    Column("title", FreeText, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("delete_after", UtcTime),
    Column("healthy", sa.Boolean, nullable=False, server_default=sa.true()),
    Column("change", sa.Integer, nullable=False, server_default="0"),
    Column("provider", sa.Text, nullable=False, server_default=""),
    Column("summary", FreeText, nullable=False, server_default=""),
    _partial("ix_bundles_expiry", "delete_after", where="delete_after IS NOT NULL"),
)

logs = Table(
    "logs",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("session_id", sa.Text, ForeignKey(sessions.c.id, ondelete="CASCADE"), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("text", FreeText, nullable=False),
    Index("ix_logs_session", "session_id", "id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", sa.Text, primary_key=True),
    Column("name", FreeText, nullable=False),
    Column("user_id", sa.Text, nullable=False),
    Column("tier", sa.Text, nullable=False),
    Column("role", sa.Text, nullable=False),
    Column("key_hash", sa.Text, nullable=False, unique=True),
    Column("created_at", UtcTime, nullable=False),
    Column("revoked_at", UtcTime),
    _partial("uq_api_keys_name", "name", where="revoked_at IS NULL", unique=True),
)

audit = Table(
    "audit",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("at", UtcTime, nullable=False, index=True),
    Column("actor", FreeText, nullable=False),
    Column("action", sa.Text, nullable=False),
    Column("subject", FreeText, nullable=False),
    Column("detail", FreeText, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", sa.Text, primary_key=True),
    Column("holder", sa.Text, nullable=False),
    Column("until", UtcTime, nullable=False),
    Column("term", sa.BigInteger, nullable=False, server_default="0"),  # counts the holders
)

# What is spent or reserved against each budget.
accounts = Table(
    "accounts",
    metadata,
    Column("key", sa.Text, primary_key=True),  # see domain/llm/budgets.py
    Column("tokens", sa.BigInteger, nullable=False),
    Column("micro_usd", sa.BigInteger, nullable=False),
    Column("changed_at", UtcTime, nullable=False, index=True),
)

# The reserved part of the accounts: one row per call under way.
reservations = Table(
    "reservations",
    metadata,
    Column("call_id", sa.Text, primary_key=True),
    Column("session_id", sa.Text, nullable=False),
    Column("user_id", sa.Text, nullable=False),
    Column("model", sa.Text, nullable=False),
    Column("tokens", sa.BigInteger, nullable=False),
    Column("micro_usd", sa.BigInteger, nullable=False),
    Column("day", sa.Text, nullable=False),  # ISO, UTC
    Column("holder", sa.Text, nullable=False, index=True),
    Column("expires_at", UtcTime, nullable=False, index=True),
    Column("change", sa.Integer, nullable=False, server_default="0"),
)

usage = Table(
    "usage",
    metadata,
    Column("call_id", sa.Text, primary_key=True),
    # No foreign keys: the history of spending outlives sessions and users.
    Column("session_id", sa.Text, nullable=False, index=True),
    Column("user_id", sa.Text, nullable=False),
    Column("model", FreeText, nullable=False),
    Column("provider", sa.Text, nullable=False),
    Column("input_tokens", sa.BigInteger, nullable=False),
    Column("output_tokens", sa.BigInteger, nullable=False),
    Column("cache_write_5m_tokens", sa.BigInteger, nullable=False),
    Column("cache_write_1h_tokens", sa.BigInteger, nullable=False),
    Column("cache_read_tokens", sa.BigInteger, nullable=False),
    Column("micro_usd", sa.BigInteger, nullable=False),
    Column("duration_ms", sa.BigInteger, nullable=False),
    Column("at", UtcTime, nullable=False, index=True),
    Column("day", sa.Text, nullable=False),  # ISO, UTC
    Column("outcome", sa.Text, nullable=False),
    Column("change", sa.Integer, nullable=False, server_default="0"),
    Index("ix_usage_user", "user_id", "at"),
)

generations = Table(
    "generations",
    metadata,
    Column("key", sa.Text, primary_key=True),  # see domain/sessions/generations.py
    Column("bundle", sa.Text, nullable=False),
    Column("session_id", sa.Text, nullable=False),
    Column("summary", FreeText, nullable=False),
    Column("created_at", UtcTime, nullable=False, index=True),
)

# Whose database this is. `upgrade.migrate` writes the one row, and refuses any other installation.
installation = Table(
    "installation",
    metadata,
    Column("only", sa.Integer, primary_key=True, autoincrement=False),  # always 1
    Column("id", sa.Text, nullable=False),  # the file `instance` of its state folder
)
