"""The groups of settings, except addresses and the model's.

Each setting has its unit and a reason. Each number has a least and a most, so that whatever we
compute from it stays possible.
"""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from orchestrator.config import networks
from orchestrator.config.base import Group
from orchestrator.contract.visits import APP_CONNECTIONS_MAX
from orchestrator.domain.logged_requests import LoggedRequests

API_PROCESSES_MAX = 16
_LOG_LEVELS = ("debug", "info", "warning", "error")


class PoolSettings(Group):
    """The hosts, and the number of sandboxes on them."""

    local_host: bool = Field(
        default=True, description="Whether this machine's own engine runs sandboxes."
    )
    slots: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Most sandboxes on this machine; 0: computed from its memory and CPUs.",
    )
    warm_target: int = Field(
        default=3, ge=0, le=500, description="Sandboxes kept warm; 3 cover a small burst."
    )
    warm_interpreters: bool = Field(
        default=True,
        description="Whether sandboxes keep a Python and a Node ready for the app, which take 70 MB"
        " of memory, as long as their host has a quarter of its memory and half of its CPUs free.",
    )
    free_slots: int = Field(
        default=2, ge=0, le=10_000, description="Slots that the warm pool leaves free for sessions."
    )
    host_disk_floor_mb: int = Field(
        default=1024,
        ge=0,
        le=1024**2,
        description="A host with less free space on its Docker disk gets no new sandboxes, MiB.",
    )
    host_memory_floor_mb: int = Field(
        default=256,
        ge=0,
        le=1024**2,
        description="A host with less available memory gets no new sandboxes, MiB.",
    )
    runtime_image: str = Field(
        default="", description="Image of the sandboxes; empty: the image built last."
    )
    ports: str = Field(
        default="21000-28999",
        description="Host ports for sandboxes; below Linux's ephemeral ports (from 32768).",
    )
    publish_address: str = Field(
        default="127.0.0.1", description="Address on which the local engine publishes sandboxes."
    )
    proxy_addresses: str = Field(
        default="",
        description="Addresses or networks that may reach apps on hosts, comma-separated; empty:"
        " the address from which our SSH connections come.",
    )

    @field_validator("ports")
    @classmethod
    def _check_ports(cls, value: str) -> str:
        low, _, high = value.partition("-")
        if not (low.isdigit() and high.isdigit() and 1024 <= int(low) <= int(high) <= 65535):
            raise ValueError("must be LOW-HIGH within 1024-65535, e.g. 21000-28999")
        return value

    @field_validator("proxy_addresses")
    @classmethod
    def _check_proxy_addresses(cls, value: str) -> str:
        return networks.check(value, has_ipv6=False)

    @property
    def port_range(self) -> tuple[int, int]:
        """First and last port for sandboxes."""
        low, _, high = self.ports.partition("-")
        return int(low), int(high)

    @property
    def proxies(self) -> tuple[str, ...]:
        """The addresses, or networks, in `proxy_addresses`."""
        return networks.parts(self.proxy_addresses)


class SandboxSettings(Group):
    """The limits of one sandbox."""

    sandbox_memory_mb: int = Field(
        default=1024, ge=64, le=1024**2, description="Memory of one sandbox, MiB; it gets no swap."
    )
    sandbox_cpus: float = Field(
        default=0.5, ge=0.01, le=512, description="CPUs of one sandbox, once its app is READY."
    )
    sandbox_start_cpus: float = Field(
        default=0,
        ge=0,
        le=512,
        description="CPUs of one that starts, generates or deploys, if its host has them and they"
        " are more than its share; 0: those of its host, at most 2.",
    )
    sandbox_pids: int = Field(
        default=256, ge=16, le=4_194_304, description="Most processes and threads of one sandbox."
    )
    upload_max_mb: int = Field(
        default=50,
        ge=1,
        le=1024,
        description="Largest body of a request to an app, MiB; an app stores files of up to 64 MiB,"
        " in the memory of its sandbox.",
    )
    sandbox_runtime: str = Field(
        default="", description="OCI runtime, e.g. runsc; empty: Docker's default."
    )


class SessionSettings(Group):
    """How long a session's phases may take, and how long its data is kept."""

    queue_max: int = Field(
        default=500,
        ge=1,
        le=100_000,
        description="Sessions that may wait for a slot before a new one; with more it is refused.",
    )
    ended_per_user: int = Field(
        default=200,
        ge=1,
        le=1_000_000,
        description="Sessions of one user that are kept for 30 days after their end; the oldest go"
        " first. The page shows 50. Operators' don't count.",
    )
    ended_total: int = Field(
        default=10_000,
        ge=1,
        le=10_000_000,
        description="The same of all users together; apps that hardly ran go first: a prompt has"
        " up to 16 KiB, the log of an app 256 KiB.",
    )
    ttl_default_s: int = Field(
        default=24 * 3600,
        ge=60,
        le=7 * 24 * 3600,
        description="Life of an app if its user names none, seconds; a user's limit counts, too.",
    )
    bundle_retention_days: int = Field(
        default=7, ge=0, le=36_500, description="How long the source of an ended app is kept, days."
    )
    provisioning_timeout_s: float = Field(
        default=30,
        gt=0,
        le=3600,
        description="Longest start of a sandbox, seconds; a cold start takes under one second, on"
        " an engine in trouble many.",
    )
    generating_timeout_s: float = Field(
        default=600,
        gt=0,
        le=24 * 3600,
        description="Longest writing of an app, seconds; a long answer takes minutes.",
    )
    deploying_timeout_s: float = Field(
        default=60,
        gt=0,
        le=3600,
        description="Longest start of an app, seconds; the slowest good app needs about this much"
        " at half a CPU.",
    )
    log_lines: int = Field(
        default=500, ge=10, le=100_000, description="Lines of an app's output kept per session."
    )


class StorageSettings(Group):
    """How much the versions of apps may take in the state folder."""

    storage_versions: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="Most versions of one app; a long evening makes some 50.",
    )
    storage_session_mb: int = Field(
        default=500, ge=1, le=1024**3, description="Most that one app's versions may take, MiB."
    )
    storage_user_mb: int = Field(
        default=2048,
        ge=1,
        le=1024**3,
        description="Most that all versions of one user may take, MiB, ended apps included until"
        " their source is deleted.",
    )
    storage_total_mb: int = Field(
        default=20 * 1024,
        ge=1,
        le=1024**3,
        description="Most that all versions together may take, MiB; leave as much free on the disk"
        " of the state folder.",
    )


class PeopleSettings(Group):
    """Visitors and operators."""

    audit_retention_days: int = Field(
        default=90,
        ge=1,
        le=36_500,
        description="How long the audit log goes back, days; a quarter.",
    )
    requests_per_address: int = Field(
        default=100,
        ge=1,
        le=1_000_000,
        description="Requests to page and API from one address (of IPv6: a /64), per second, and"
        " ten times as many at once; 30 people behind one address who open the page make 900.",
    )
    starts_per_address: int = Field(
        default=10,
        ge=1,
        le=1_000_000,
        description="Apps that visitors may start from one address, per minute, and five times as"
        " many at once; who has a key isn't counted. Ten people who try things out.",
    )
    polls_per_address: int = Field(
        default=200,
        ge=1,
        le=65535,
        description="Requests of visitors from one address that may wait for a change at a time;"
        " an office shares an address.",
    )
    transfers_per_address: int = Field(
        default=50,
        ge=1,
        le=65535,
        description="Bundles fetched, and requests with a body sent, from one address at a time;"
        " the proxy keeps up to 20 MiB of each on its disk for a slow client.",
    )
    reads_per_address: int = Field(
        default=200,
        ge=1,
        le=65535,
        description="Lists and other answers to one address that may be on their way at a time; the"
        " proxy keeps up to 256 KiB of each on its disk for a slow client. As many as may wait for"
        " their turn in the API.",
    )
    connections_per_address: int = Field(
        default=1200,
        ge=1,
        le=65535,
        description="Requests from one address that may be open at a time, to the page, and as many"
        " to apps; an operator's program may wait for 1,000 sessions.",
    )
    app_connections_per_address: int = Field(
        default=128,
        ge=1,
        le=APP_CONNECTIONS_MAX,
        description="Requests from one address to one app that may be open at a time, WebSockets"
        " too; a quarter of what an app can have, which all its visitors share.",
    )
    connections_per_app: int = Field(
        default=APP_CONNECTIONS_MAX,
        ge=1,
        le=APP_CONNECTIONS_MAX,
        description="The same from all addresses together; an app's sandbox has room for no more.",
    )
    cookie_secure: bool = Field(
        default=False, description="Mark the visitors' cookies Secure; set this behind TLS."
    )
    api_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key that spawnctl uses; empty: the operator key in the state folder.",
    )


class ProcessSettings(Group):
    """Our own processes."""

    api_processes: int = Field(
        default=2,
        ge=1,
        le=API_PROCESSES_MAX,
        description="Processes that serve page and API; 2, so that the end of one refuses nobody.",
    )
    workers: int = Field(
        default=2,
        ge=1,
        le=32,
        description="Worker processes; 2, since a worker never waits for long.",
    )
    hang_limit_s: float = Field(
        default=30,
        ge=2,
        le=3600,
        description="A process of ours that gave no sign of life for so long is killed and started"
        " again, seconds; machines that are far too busy have made us wait for 10.",
    )
    pass_limit_s: float = Field(
        default=120,
        ge=2,
        le=3600,
        description="With a pass of a loop that takes longer, the daemon is started again, seconds;"
        " a database in trouble may hold one up for a minute.",
    )
    log_level: str = Field(
        default="info", description="Lowest level that is logged: debug, info, warning or error."
    )
    access_log: LoggedRequests = Field(
        default=LoggedRequests.WRITES,
        description="Which requests are logged, each with its address and status, at level info:"
        " off, errors, writes (and errors: enough to trace abuse, and polls cost nothing) or all.",
    )

    @field_validator("log_level")
    @classmethod
    def _check_log_level(cls, value: str) -> str:
        if value.lower() not in _LOG_LEVELS:
            raise ValueError(f"must be one of {', '.join(_LOG_LEVELS)}")
        return value.lower()
