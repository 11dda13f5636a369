"""Settings: one place, in groups, each with its unit and the reason for its default.

Read from the environment (`SPAWN_…`), then from `$SPAWN_STATE_DIR/spawn.env`. Read by bootstrap and
by the entry points; `spawnctl config` prints every value and where it came from.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT_ROOT = Path(__file__).resolve().parent.parent


def _default_state_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/spawnai")  # root's home is closed to the proxy's workers
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "spawnai"


class Group(BaseSettings):
    """Settings of one topic. Secrets are SecretStr, so that printing them can't leak them."""

    model_config = SettingsConfigDict(
        env_prefix="SPAWN_", extra="ignore", frozen=True, populate_by_name=True
    )


class Places(Group):
    """Where things are."""

    state_dir: Path = Field(
        default_factory=_default_state_dir,
        description="Folder of everything that is kept: database, bundles, secrets, logs, sockets.",
    )
    database_url: str = Field(
        default="",
        description="PostgreSQL in production; empty: SQLite in the state folder.",
    )
    redis_url: str = Field(
        default="", description="Redis for nudges; empty: a private one in the state folder."
    )
    docker_url: str = Field(
        default="unix:///var/run/docker.sock", description="The local Docker engine."
    )

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        known = ("sqlite:", "postgresql:", "postgresql+psycopg:", "postgres:")
        if value and not value.startswith(known):
            raise ValueError("must start with postgresql:// or sqlite:///")
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
        """Mounted into every sandbox; holds nothing but the agent socket."""
        return self.state_dir / "agent"

    @property
    def agent_socket(self) -> Path:
        return self.agent_folder / "agent.sock"

    @property
    def ssh_key(self) -> Path:
        """The private key that hosts are reached with."""
        return self.state_dir / "ssh" / "id_ed25519"

    @property
    def links_folder(self) -> Path:
        """Where the Docker sockets of hosts reached by SSH appear."""
        return self.state_dir / "links"

    @property
    def inventory(self) -> Path:
        """The hosts as the daemon last knew them, for break-glass commands."""
        return self.state_dir / "inventory.json"


class Addresses(Group):
    """Where the proxy and spawn-api listen, and under which names."""

    http_address: str = Field(
        default="127.0.0.1",
        description="Where the proxy listens; loopback until somebody decides otherwise.",
    )
    http_port: int = Field(default=8080, ge=1, le=65535, description="Port of the proxy.")
    api_port: int = Field(
        default=8081, ge=1, le=65535, description="Port of spawn-api, on loopback, for the proxy."
    )
    control_port: int = Field(
        default=8082,
        ge=1,
        le=65535,
        description="Port on loopback on which the proxy confirms its routes.",
    )
    public_host: str = Field(default="localhost", description="Name of the page.")
    apps_domain: str = Field(
        default="apps.localhost",
        description="Apps answer at <slug>.<this>; browsers resolve *.localhost by themselves.",
    )

    @property
    def page_url(self) -> str:
        return f"http://{self.public_host}:{self.http_port}"

    @property
    def probe_address(self) -> str:
        """Where our own processes reach the proxy."""
        return "127.0.0.1" if self.http_address == "0.0.0.0" else self.http_address

    def app_url(self, slug: str) -> str:
        """The public address of an app."""
        return f"http://{slug}.{self.apps_domain}:{self.http_port}/"


class PoolSettings(Group):
    """Hosts, and how many sandboxes there are on them."""

    local_host: bool = Field(
        default=True, description="Whether this machine's own engine takes sandboxes."
    )
    slots: int = Field(
        default=0, ge=0, le=1000, description="Sandboxes on this machine; 0: from memory and CPUs."
    )
    warm_target: int = Field(
        default=3, ge=0, le=500, description="Sandboxes kept warm: covers a small burst."
    )
    free_slots: int = Field(
        default=2, ge=0, description="Slots that warm sandboxes leave free, for sessions."
    )
    host_disk_floor_mb: int = Field(
        default=1024,
        ge=0,
        description="Free on a host's Docker disk, or nothing new goes there, MiB.",
    )
    host_memory_floor_mb: int = Field(
        default=256, ge=0, description="Available on a host, or nothing new goes there, MiB."
    )
    runtime_image: str = Field(
        default="", description="Image of the sandboxes; empty: the one built last."
    )
    ports: str = Field(
        default="21000-28999",
        description="Host ports for sandboxes; below Linux's ephemeral range (from 32768).",
    )
    publish_address: str = Field(
        default="127.0.0.1", description="Address on which the local engine publishes sandboxes."
    )
    proxy_addresses: str = Field(
        default="",
        description="Who may reach apps on hosts, comma-separated; empty: whence our SSH comes.",
    )

    @field_validator("ports")
    @classmethod
    def _a_range(cls, value: str) -> str:
        low, _, high = value.partition("-")
        if not (low.isdigit() and high.isdigit() and 1024 <= int(low) <= int(high) <= 65535):
            raise ValueError("must be LOW-HIGH within 1024-65535, e.g. 21000-28999")
        return value

    @field_validator("proxy_addresses")
    @classmethod
    def _networks(cls, value: str) -> str:
        for one in filter(None, (part.strip() for part in value.split(","))):
            ipaddress.IPv4Network(one)  # raises ValueError, which names what is wrong
        return value

    @property
    def port_range(self) -> tuple[int, int]:
        """First and last port for sandboxes."""
        low, _, high = self.ports.partition("-")
        return int(low), int(high)

    @property
    def proxies(self) -> tuple[str, ...]:
        """The addresses, or networks, in `proxy_addresses`."""
        return tuple(one.strip() for one in self.proxy_addresses.split(",") if one.strip())


class SandboxSettings(Group):
    """What one sandbox may have."""

    sandbox_memory_mb: int = Field(default=1024, ge=64, description="Memory limit, MiB; no swap.")
    sandbox_cpus: float = Field(default=0.5, gt=0, description="CPUs of one sandbox.")
    sandbox_pids: int = Field(default=256, ge=16, description="Processes and threads, at most.")
    sandbox_runtime: str = Field(default="", description="OCI runtime, e.g. runsc; empty: default.")


class SessionSettings(Group):
    """How long things may take, and how long they are kept."""

    ttl_default_s: int = Field(
        default=24 * 3600, ge=60, description="Life of an app when nobody says otherwise, seconds."
    )
    bundle_retention_days: int = Field(
        default=7, ge=0, description="How long the source of an ended app is kept, days."
    )
    provisioning_timeout_s: float = Field(
        default=30, gt=0, description="A cold start takes under one; an engine in trouble, many."
    )
    generating_timeout_s: float = Field(
        default=600, gt=0, description="A long answer of the model takes minutes."
    )
    deploying_timeout_s: float = Field(
        default=60, gt=0, description="The slowest honest start of an app at half a CPU."
    )
    log_lines: int = Field(default=500, ge=10, description="Lines of output kept per session.")


class LlmSettings(Group):
    """Claude, other providers, what they may cost, and the demo's canned answers."""

    anthropic_api_key: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=AliasChoices("ANTHROPIC_API_KEY", "SPAWN_ANTHROPIC_API_KEY"),
        description="Key for generation; without it only templates can be started.",
    )
    anthropic_base_url: str = Field(
        default="https://api.anthropic.com",
        validation_alias=AliasChoices("ANTHROPIC_BASE_URL", "SPAWN_ANTHROPIC_BASE_URL"),
        description="Where the gateway forwards to.",
    )
    model: str = Field(default="claude-sonnet-5-5", description="Model that writes the apps.")
    max_tokens: int = Field(
        default=32_000,
        ge=1024,
        description="Most tokens of one answer; a big app has about 20,000.",
    )
    models: str = Field(
        default="",
        description="Models that the gateway lets through, comma-separated; empty: SPAWN_MODEL.",
    )
    budget_session_usd: Decimal = Field(
        default=Decimal(5), ge=0, description="Most that one session may cost; 0: no limit."
    )
    budget_session_tokens: int = Field(
        default=0, ge=0, description="Most tokens of one session; 0: no limit, money is the fence."
    )
    budget_user_usd: Decimal = Field(
        default=Decimal(20),
        ge=0,
        description="Most that one user may cost a day (UTC); 0: no limit.",
    )
    budget_user_tokens: int = Field(
        default=0, ge=0, description="Most tokens of one user a day (UTC); 0: no limit."
    )
    budget_day_usd: Decimal = Field(
        default=Decimal(100), ge=0, description="Most that everything may cost a day; 0: no limit."
    )
    budget_day_tokens: int = Field(
        default=0, ge=0, description="Most tokens of everything a day (UTC); 0: no limit."
    )
    provider_concurrency: int = Field(
        default=8, ge=1, le=1000, description="Calls at the providers at once; the rest queues."
    )
    provider_queue_s: float = Field(
        default=60, gt=0, description="Longest wait in that queue; clients give up after minutes."
    )
    provider_retry_s: float = Field(
        default=20, gt=0, description="How long a call that nobody answers is tried again, seconds."
    )
    share_between_users: bool = Field(
        default=False, description="Let users share answers and generations of equal requests."
    )
    fallback_api_key: SecretStr = Field(
        default=SecretStr(""),
        description="Second key, asked when Anthropic fails or refuses the first; empty: none.",
    )
    fallback_base_url: str = Field(
        default="",
        description="Anthropic-compatible endpoint of the second key; empty: ANTHROPIC_BASE_URL.",
    )
    openai_base_url: str = Field(
        default="",
        description="OpenAI-compatible endpoint, up to /v1, asked last; empty: none.",
    )
    openai_api_key: SecretStr = Field(
        default=SecretStr(""), description="Key for it; may stay empty for a server of your own."
    )
    openai_model: str = Field(
        default="", validate_default=True, description="Model to ask there; needed with its URL."
    )
    openai_limit_field: str = Field(
        default="max_completion_tokens",
        pattern="^max_(completion_)?tokens$",
        description="How that endpoint calls the limit of an answer; older servers: max_tokens.",
    )
    demo: bool = Field(
        default=False, description="Answers are canned; `spawnctl up --demo` sets this and the URL."
    )
    demo_port: int = Field(
        default=8083, ge=1, le=65535, description="Port on loopback of the demo's canned answers."
    )

    @field_validator("openai_model")
    @classmethod
    def _a_model_for_the_endpoint(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("openai_base_url") and not value:
            raise ValueError("SPAWN_OPENAI_BASE_URL needs it: which model to ask there")
        return value

    @property
    def can_generate(self) -> bool:
        """Whether there is anybody to ask for an app."""
        keys = (self.anthropic_api_key, self.fallback_api_key)
        return any(key.get_secret_value() for key in keys) or bool(self.openai_base_url)

    @property
    def allowed_models(self) -> tuple[str, ...]:
        """Models that the gateway lets through; SPAWN_MODEL always is one."""
        named = [name.strip() for name in self.models.split(",")]
        return tuple(dict.fromkeys([self.model, *(name for name in named if name)]))


class PeopleSettings(Group):
    """Visitors and operators."""

    cookie_secure: bool = Field(
        default=False, description="Mark the visitor's cookie Secure; set it behind TLS."
    )
    api_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key that spawnctl uses; empty: the operator key in the state folder.",
    )


class ProcessSettings(Group):
    """Our own processes."""

    workers: int = Field(
        default=2, ge=1, le=32, description="Worker processes; a converge is mostly waiting."
    )
    log_level: str = Field(default="info", description="debug, info, warning or error.")


class Settings(BaseModel):
    """Everything that can be set, by topic."""

    model_config = ConfigDict(frozen=True)

    places: Places
    addresses: Addresses
    pool: PoolSettings
    sandbox: SandboxSettings
    sessions: SessionSettings
    llm: LlmSettings
    people: PeopleSettings
    processes: ProcessSettings


GROUPS: Mapping[str, type[Group]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Group)
}


def fields() -> Iterator[tuple[str, str, FieldInfo]]:
    """Every setting, in order: its group, its name, and what is known of it."""
    for group_name, group in GROUPS.items():
        for name, info in group.model_fields.items():
            yield group_name, name, info


def load() -> Settings:
    """Settings of this process. Raises pydantic.ValidationError with every wrong value named."""
    state_dir = Path(os.environ.get("SPAWN_STATE_DIR") or _default_state_dir())
    return make(env_file=state_dir / "spawn.env", state_dir=state_dir)


def make(*, env_file: Path | None = None, **values: Any) -> Settings:
    """Settings with some values given by name, whatever their group; the others come from the
    environment and from `env_file`. Raises pydantic.ValidationError with every wrong value named.
    """
    groups: dict[str, Group] = {}
    wrong: list[InitErrorDetails] = []
    for name, group in GROUPS.items():
        own = {field: values.pop(field) for field in group.model_fields if field in values}
        try:
            groups[name] = group(_env_file=env_file, **own)  # type: ignore[call-arg]  # pydantic-settings' own argument
        except ValidationError as error:
            wrong += error.errors()  # type: ignore[arg-type]  # the same keys, and a few more
    if values:
        raise TypeError(f"no such settings: {', '.join(values)}")
    if wrong:
        raise ValidationError.from_exception_data("Settings", wrong)
    return Settings(**groups)  # type: ignore[arg-type]  # each is of the class that GROUPS names
