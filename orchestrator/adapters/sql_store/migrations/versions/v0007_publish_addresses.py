"""Each host's publish address is its own.

Of hosts that shared one, the oldest keeps it. The others leave the pool: their apps start again
elsewhere, from their bundles. Until now, no route could be published while two of them had an app
on the same port.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_STAYS = sa.text("drain <> 'leave'")


def upgrade() -> None:
    op.execute(
        "UPDATE hosts SET drain = 'leave', reason = 'another host has its publish address: add it"
        " again with one of its own' WHERE drain <> 'leave'"
        " AND EXISTS (SELECT 1 FROM hosts AS older"
        " WHERE older.publish_address = hosts.publish_address AND older.drain <> 'leave'"
        " AND (older.created_at < hosts.created_at"
        " OR (older.created_at = hosts.created_at AND older.id < hosts.id)))"
    )
    op.create_index(
        "uq_hosts_publish_address",
        "hosts",
        ["publish_address"],
        unique=True,
        postgresql_where=_STAYS,
        sqlite_where=_STAYS,
    )


def downgrade() -> None:
    op.drop_index("uq_hosts_publish_address", table_name="hosts")
