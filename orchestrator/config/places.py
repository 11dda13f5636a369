"""Where things are: the state folder and what lies in it, the database and Redis."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from orchestrator.config.base import Group


def default_state_dir() -> Path:
    """Where the state folder is unless SPAWN_STATE_DIR says so."""
    if os.geteuid() == 0:
        return Path("/var/lib/spawnai")  # the proxy's workers can't read root's home
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "spawnai"


def _is_redis_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port  # parsed only now
    except ValueError:
        return False
    if parts.scheme == "unix":
        return bool(parts.path)
    return parts.scheme in {"redis", "rediss"} and port != 0


class Places(Group):
    """The state folder, the database, Redis and the local engine."""

    state_dir: Path = Field(
        default_factory=default_state_dir,
        description="State folder: database, bundles, secrets, logs, sockets.",
    )
    database_url: str = Field(
        default="",
        repr=False,
        description="URL of PostgreSQL, for production; empty: SQLite in the state folder.",
    )
    redis_url: str = Field(
        default="",
        repr=False,
        description="URL of Redis, for nudges; empty: a private server in the state folder.",
    )
    docker_url: str = Field(
        default="unix:///var/run/docker.sock", description="The local Docker engine."
    )

    disk_floor_mb: int = Field(
        default=512,
        ge=0,
        le=1024**2,
        description="With less free space on the disk of the state folder, no new sessions, changes"
        " and bundles are taken, MiB; enough to end and prune what there is.",
    )

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: str) -> str:
        schemes = ("sqlite:", "postgresql:", "postgresql+psycopg:", "postgres:")
        if value and not value.startswith(schemes):
            raise ValueError("must start with postgresql:// or sqlite:///")
        return value

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: str) -> str:
        if value and not _is_redis_url(value):
            raise ValueError(
                "must be as redis://user:password@host:6379/0, rediss://... or unix:///path;"
                " write special characters in the password as %XX"
            )
        return value

    @property
    def effective_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.state_dir / 'spawn.db'}"

    @property
    def effective_redis_url(self) -> str:
        return self.redis_url or f"unix://{self.redis_socket}"

    @property
    def redis_socket(self) -> Path:
        return self.state_dir / "redis" / "redis.sock"

    @property
    def agent_folder(self) -> Path:
        """The folder of the agent sockets: one for each sandbox, and the shared one."""
        return self.state_dir / "agent"

    @property
    def agent_socket(self) -> Path:
        """The shared one. Our processes use it, and sandboxes from before each had its own."""
        return self.agent_folder / "agent.sock"

    @property
    def gateway_socket(self) -> Path:
        """Where the gateway's process tells ours about itself. No sandbox can reach it."""
        return self.state_dir / "gateway" / "gateway.sock"

    @property
    def api_folder(self) -> Path:
        """The folder of the sockets on which the proxy reaches the api processes."""
        return self.state_dir / "api"

    def api_socket(self, number: int) -> Path:
        """The socket of one api process. They are numbered from 1."""
        return self.api_folder / f"{number}.sock"

    @property
    def ssh_key(self) -> Path:
        """Our private key for all hosts."""
        return self.state_dir / "ssh" / "id_ed25519"

    @property
    def links_folder(self) -> Path:
        """The folder of the forwarded Docker sockets, one for each host reached by SSH."""
        return self.state_dir / "links"

    @property
    def events_folder(self) -> Path:
        """The folder of the sockets on which our processes wake each other."""
        return self.state_dir / "events"

    @property
    def link_board(self) -> Path:
        """The state of the links to the hosts, as the daemon last wrote it."""
        return self.state_dir / "links.json"

    @property
    def inventory(self) -> Path:
        """The hosts as the daemon last saw them, for break-glass commands."""
        return self.state_dir / "inventory.json"
