"""What the services need from the outside, as Protocols that name their errors.

Adapters implement these; tests/fakes has hand-written fakes; tests/contract runs one suite on both.
All times are timezone-aware UTC. Everything may raise errors.Temporary when its server is away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from orchestrator.domain.access import ApiKey, Queue
from orchestrator.domain.budget import Budgets, Spend
from orchestrator.domain.bundle import BundleRecord, Manifest
from orchestrator.domain.change import Change
from orchestrator.domain.diagnosis import Container
from orchestrator.domain.generation import Generation
from orchestrator.domain.host import Host, HostLoad, Reach, Wish
from orchestrator.domain.ids import HostId, KeyId, SandboxId, SessionId, Sha256, Slug, UserId
from orchestrator.domain.pool import PoolTotals
from orchestrator.domain.route import Route, RouteTable
from orchestrator.domain.sandbox import Sandbox, SandboxState
from orchestrator.domain.session import Session, SessionState
from orchestrator.domain.usage import By, Call, Reservation, UsageSum


class Clock(Protocol):
    """Where services get the time from."""

    def now(self) -> datetime: ...


@dataclass(frozen=True, kw_only=True)
class Idempotency:
    """A client's Idempotency-Key and what it was first used for."""

    key: str
    fingerprint: str  # SHA-256 of the request; another one under the same key is a conflict


@dataclass(frozen=True, kw_only=True)
class NewSandbox:
    """The parts of a sandbox that its maker chooses; host, port and times come from the store."""

    id: SandboxId
    session_id: SessionId | None
    slug: Slug
    image: str  # today's; a session's sandbox may get the older one that its host has
    wish: Wish = field(default_factory=Wish)
    avoid: tuple[HostId, ...] = ()  # hosts that are not to be tried


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """One line of an app's or agent's output."""

    at: datetime
    text: str


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """Something worth remembering about who did what."""

    at: datetime
    actor: str  # user id, key id, "operator", "agent"
    action: str  # e.g. "report_refused", "session_killed"
    subject: str  # id of what it was done to
    detail: str = ""


class Sessions(Protocol):
    """Sessions and their history. Every write bumps `revision`."""

    def add(self, session: Session, idempotency: Idempotency | None, *, max_active: int) -> Session:
        """Insert, and return it. With a known idempotency key of the same user and the same
        fingerprint: return the session that was made then, unchanged. Raises errors.Conflict
        (code idempotency_conflict) when the fingerprint differs, errors.LimitReached (detail:
        limit) when the user has `max_active` sessions that haven't ended: counted in the same
        transaction, under a lock on the user, so that concurrent calls can't pass it."""

    def get(self, session_id: SessionId) -> Session:
        """Raises errors.NotFound."""

    def save(self, session: Session) -> Session:
        """Write it if its revision is still the stored one; returns it with the next revision.
        A new entry of history becomes an event. Raises errors.StaleWrite, errors.NotFound."""

    def list(
        self,
        *,
        user_id: UserId | None = None,
        states: Iterable[SessionState] | None = None,
        limit: int = 100,
    ) -> Sequence[Session]:
        """Newest first."""

    def counts(self) -> dict[SessionState, int]:
        """Sessions per state; states without any are left out."""

    def count_in(self, states: Iterable[SessionState]) -> int:
        """Sessions in these states: costs no more than there are, which `counts` does."""

    def ahead_of(self, session: Session, now: datetime) -> int:
        """QUEUED, due and wanted sessions before it, by tier rank and then age (id breaks ties)."""

    def waiting(self, now: datetime) -> int:
        """QUEUED sessions that are due and wanted."""

    def due(self, now: datetime, limit: int) -> Sequence[Session]:
        """Not ended, due_at <= now; those under way first, then QUEUED in queue order."""

    def expire(self, now: datetime, limit: int) -> Sequence[Session]:
        """Set wanted = GONE, due_at = now where RUNNING, not ended and expires_at <= now: checked
        and written in one transaction, so that an extend that committed first wins. Returns
        those sessions."""

    def prune(self, ended_before: datetime) -> int:
        """Delete ended sessions (with events and logs) whose last update is older; how many."""


class Sandboxes(Protocol):
    """Sandboxes, claims and placements."""

    def get(self, sandbox_id: SandboxId) -> Sandbox:
        """Raises errors.NotFound."""

    def list(
        self, *, host_id: HostId | None = None, states: Iterable[SandboxState] | None = None
    ) -> Sequence[Sandbox]:
        """Those not GONE unless states say otherwise; oldest first."""

    def place(self, new: NewSandbox, now: datetime) -> Sandbox:
        """The intent: pick a host with a free slot that meets the wish (the best of a few, by
        pool.rank) and insert a CREATING sandbox with the next port of that host, round-robin over
        the port range, that no sandbox but GONE ones holds. Slots can't be oversubscribed by
        concurrent callers. What it reads doesn't grow with the pool. Raises errors.NoCapacity."""

    def place_for(self, session: Session, new: NewSandbox, now: datetime) -> Sandbox:
        """`place`, and save `session` (already moved, and pointing at the new sandbox) in the same
        transaction. Raises errors.NoCapacity, errors.StaleWrite."""

    def claim(self, session: Session, now: datetime) -> tuple[Session, Sandbox] | None:
        """In one transaction: the oldest WARM, routed sandbox on a host that is UP, neither
        cordoned nor draining, and meets the session's wish becomes CLAIMED with session_id, and
        `session` (already moved to PROVISIONING by the caller) is saved with sandbox_id and,
        unless it has one already, slug. A session that has a slug (recovery) keeps it: the sandbox
        takes it over and is no longer routed. None when there is no warm sandbox (nothing is
        written then). PostgreSQL: FOR UPDATE SKIP LOCKED; SQLite: BEGIN IMMEDIATE. Raises
        errors.StaleWrite (then no sandbox is claimed)."""

    def claim_successor(self, session: Session, now: datetime) -> tuple[Session, Sandbox] | None:
        """The same for a READY session that is to move: the sandbox keeps its own slug and becomes
        `session.move`; the session's sandbox and slug stay as they are. Not on a host in
        `session.refused_by`."""

    def switch(self, session: Session, now: datetime) -> Session:
        """In one transaction: the session's slug goes from its sandbox to the one in
        `session.move`, which becomes its sandbox; the old one gets a slug of its own and stands in
        `move` from then on. Neither is routed until the next table is published. Raises
        errors.StaleWrite when the session or one of the two has changed."""

    def save(self, sandbox: Sandbox, expected: SandboxState) -> Sandbox:
        """Write state, session_id, reason, state_since and container_id if the stored state is
        still `expected`. A move to STOPPING also sets `routed`, whatever it was: a table that is
        being published right now may hold the route, so a withdrawal has to be confirmed first.
        Raises errors.StaleWrite."""

    def set_container(self, sandbox_id: SandboxId, container_id: str) -> None:
        """Record Docker's answer, whatever the state has become meanwhile."""

    def agent_seen(self, sandbox_id: SandboxId, now: datetime) -> Sandbox:
        """Record a visit to the inbox and apply sandbox.settle, in one transaction.
        Raises errors.NotFound."""

    def mark_routes(
        self, live: Mapping[SandboxId, Slug], withdrawn: Iterable[SandboxId], now: datetime
    ) -> Sequence[Sandbox]:
        """Set routed for `live`, given with the slugs that were published (only while in a routed
        state and under that slug: recovery changes it), and clear it for `withdrawn` (only while
        not in a routed state); apply sandbox.settle; returns the sandboxes that changed."""

    def routes(self) -> Sequence[tuple[SandboxId, Route]]:
        """What the RouteTable holds: sandboxes in routed states, with their host's address. None
        of an earlier generation of its host: what was lost with it is never served again."""

    def loose(self) -> Sequence[Sandbox]:
        """Those BROKEN or STOPPING, wherever they are."""

    def warm_counts(self) -> Mapping[str, int]:
        """Sandboxes that a claim could get now, by image."""

    def warming(self) -> int:
        """CREATING for the warm pool."""

    def unsettled_routes(self) -> bool:
        """Whether a publish is due: routed states not routed yet, or others still routed."""


class Hosts(Protocol):
    """Hosts of the pool."""

    def put(self, host: Host) -> None:
        """Insert or replace by id; names and machine ids are unique. Raises errors.Conflict
        (host_exists, machine_known)."""

    def change(self, host_id: HostId, how: Callable[[Host], Host]) -> Host:
        """Read, have `how` say what it becomes, and write, under a lock on its row; returns it.
        Raises errors.NotFound, and what `how` raises (then nothing is written)."""

    def lose(self, host_id: HostId, now: datetime, reason: str) -> Sequence[Sandbox]:
        """In one transaction: the host is LOST and of its next generation, and all its sandboxes
        are BROKEN unless they are STOPPING already; returns those that are not GONE. Raises
        errors.NotFound, errors.IllegalMove."""

    def remove(self, host_id: HostId) -> None:
        """Delete it with the records of its GONE sandboxes. Raises errors.NotFound,
        errors.Conflict (host_in_use) while any other is there."""

    def get(self, host_id: HostId) -> Host:
        """Raises errors.NotFound."""

    def by_name(self, name: str) -> Host | None: ...

    def list(self) -> Sequence[Host]: ...

    def loads(self) -> Sequence[HostLoad]:
        """Every host with what its sandboxes take: for people and metrics, not for claims."""

    def totals(self) -> PoolTotals:
        """Of hosts that take placements."""

    def room(self, enough: int) -> int:
        """Free slots of hosts that take placements, counted no further than `enough`."""

    def could_take(self, wish: Wish, *, without: Collection[HostId] = ()) -> bool:
        """Whether a host beside those takes placements and meets the wish, free slot or not."""

    def known(self, wish: Wish) -> bool:
        """Whether any host, in whatever state, meets the wish."""


class Changes(Protocol):
    """What users ask of apps that are there."""

    def add(self, change: Change, session: Session, idempotency_key: str | None) -> Session:
        """Insert, and save `session`, which counts it, in the same transaction. Raises
        errors.StaleWrite, errors.NotFound."""

    def find(self, session_id: SessionId, idempotency_key: str) -> Change | None:
        """The one that was asked for with this key."""

    def get(self, session_id: SessionId, number: int) -> Change:
        """Raises errors.NotFound."""

    def list(self, session_id: SessionId) -> Sequence[Change]:
        """Oldest first."""

    def conclude(self, change: Change, session: Session) -> Session:
        """Write how a change ended, and save `session` in the same transaction. Raises
        errors.StaleWrite."""


class BundleRecords(Protocol):
    """Which versions a session has. The bytes are in Bundles."""

    def add(self, record: BundleRecord) -> None:
        """Insert; a repeat of the same session, version and digest is no error."""

    def update(self, record: BundleRecord) -> None:
        """Write healthy, provider and summary of a record that is there."""

    def list(self, session_id: SessionId) -> Sequence[BundleRecord]:
        """Oldest first."""

    def retire(self, session_id: SessionId, delete_after: datetime) -> None:
        """Start the retention of all bundles of a session; a date that is set stays."""

    def take_expired(self, now: datetime) -> Sequence[Sha256]:
        """Delete records past their retention; returns digests that no record names any more."""


class Logs(Protocol):
    """The last lines of each session's app; capped (SPAWN_LOG_LINES per session)."""

    def append(self, session_id: SessionId, lines: Sequence[str], now: datetime) -> None: ...

    def tail(self, session_id: SessionId, limit: int) -> Sequence[LogLine]:
        """Oldest first."""


class Keys(Protocol):
    """API keys, by hash."""

    def add(self, key: ApiKey) -> None:
        """Raises errors.Conflict (key_exists) when an unrevoked key has that name."""

    def by_hash(self, key_hash: str) -> ApiKey | None:
        """None for unknown and revoked ones."""

    def list(self) -> Sequence[ApiKey]: ...

    def revoke(self, key_id: KeyId, now: datetime) -> None:
        """Raises errors.NotFound."""


class Audit(Protocol):
    """Append-only."""

    def add(self, entry: AuditEntry) -> None: ...

    def list(self, limit: int = 100) -> Sequence[AuditEntry]:
        """Newest first."""


class Leases(Protocol):
    """Named leases: exactly one holder at a time."""

    def hold(self, name: str, holder: str, until: datetime, now: datetime) -> bool:
        """Take or renew; False when somebody else's has not run out."""

    def release(self, name: str, holder: str) -> None: ...

    def holder(self, name: str, now: datetime) -> str | None:
        """Who holds it; None when nobody does or its time has run out."""


class Usage(Protocol):
    """Calls to the model: what is set aside for them beforehand, and what they came to."""

    def reserve(self, wanted: Reservation, budgets: Budgets, now: datetime) -> None:
        """Enter the call's worst case in the accounts of its session, its user's day and the day,
        all or none, in one transaction. First gives back what is reserved beyond its expiry, as
        calls that were LOST. Raises errors.BudgetExhausted when an account can't take it."""

    def renew(self, holder: str, until: datetime) -> None:
        """Let no reservation of this holder expire before `until`."""

    def settle(self, call: Call) -> None:
        """Write a call down, and correct the accounts from its worst case to what it came to.
        Repeating it changes nothing."""

    def spent(self, keys: Iterable[str]) -> Mapping[str, Spend]:
        """What has been spent or set aside, by account key; accounts never used are missing."""

    def of_session(self, session_id: SessionId) -> Sequence[UsageSum]:
        """A session's calls that are over, summed by provider, the dearest first."""

    def providers(self, session_id: SessionId, change: int) -> Sequence[str]:
        """Who served the calls of one change (0: of the first version), in order of their end."""

    def outputs(self, *, changes: bool, since: datetime, limit: int) -> Sequence[int]:
        """Output tokens that first versions took, or changes, the latest ones first."""

    def sums(
        self, by: By, *, since: datetime, user_id: UserId | None = None, limit: int = 100
    ) -> Sequence[UsageSum]:
        """Calls that ended at or after `since`: days newest first, the rest dearest first."""

    def prune(self, before: datetime) -> int:
        """Delete calls that ended before then, and accounts untouched since; how many calls."""


class Generations(Protocol):
    """Healthy bundles by what was asked for, to be started again within domain.generation's
    FRESH_FOR."""

    def put(self, generation: Generation) -> None:
        """Keep, in the place of an older one with this key."""

    def find(self, key: str, now: datetime) -> Generation | None: ...

    def prune(self, now: datetime) -> int:
        """Delete those that are no longer fresh; how many."""


class Store(Protocol):
    """All of the database. Each call is a transaction of its own."""

    @property
    def sessions(self) -> Sessions: ...
    @property
    def sandboxes(self) -> Sandboxes: ...
    @property
    def hosts(self) -> Hosts: ...
    @property
    def changes(self) -> Changes: ...
    @property
    def bundles(self) -> BundleRecords: ...
    @property
    def logs(self) -> Logs: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def audit(self) -> Audit: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def generations(self) -> Generations: ...

    def ping(self) -> None:
        """Raises errors.Temporary when the database is away."""

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class SandboxSpec:
    """Everything an engine needs to create one sandbox."""

    sandbox_id: SandboxId
    image: str
    publish_address: str  # on the host
    port: int  # on the host; 3000 inside
    agent_folder: str  # on the host; mounted read-only at /run/spawn
    identity: str  # one line of JSON for the agent's standard input; holds its token


class Engine(Protocol):
    """One host's Docker. Raises errors.EngineUnavailable when it does not answer."""

    def start(self, spec: SandboxSpec, *, replace_stale: bool) -> str:
        """Create and start; returns the container's id. Repeating it is safe: a running container
        of that sandbox is adopted. A container that is created but not started may be somebody
        else's work in progress: raises errors.SandboxRefused(start_in_progress), unless
        `replace_stale`, which removes it first. Raises errors.SandboxRefused with code
        image_missing, port_taken, disk_full or create_failed."""

    def remove(self, sandbox_id: SandboxId) -> None:
        """Stop at once and remove with its volumes; no error when there is none. Returns only
        when the container is gone."""

    def containers(self) -> Sequence[Container]:
        """All of this instance's, found by label, running or not."""

    def image_present(self, image: str) -> bool: ...

    def prepare(self) -> Sequence[str]:
        """Make network and egress rules, idempotently; returns warnings for people (rules that
        could not be set and how to set them)."""

    def dismantle(self) -> None:
        """Remove the network and the rules, if no container uses them."""

    def describe(self) -> dict[str, Any]:
        """version, storage_driver, root (its folder), cgroup_version, memory_bytes, cpus,
        security_options."""

    def prune_images(self, keep: Collection[str]) -> int:
        """Remove runtime images that we pushed there, but for `keep` and what is in use; how
        many. Nobody else's images are touched."""

    def logs(self, sandbox_id: SandboxId, lines: int) -> str:
        """The agent's own last output; "" when there is no container."""

    def close(self) -> None: ...


class Engines(Protocol):
    """Engines by host: connections are kept, one per host and process."""

    def of(self, host: Host) -> Engine: ...

    def close(self) -> None: ...


class Fleet(Protocol):
    """The daemon's links to all hosts, and what it sees through them. Held by the leader alone."""

    def keep(self, hosts: Sequence[Host]) -> None:
        """From now on be linked to exactly these hosts."""

    def reach(self, host: Host) -> Reach | None:
        """Whether that host answers; None while there is nothing to say yet: our own start is no
        fault of theirs."""

    def run(self, host: Host, argv: Sequence[str]) -> CommandOutcome:
        """Run a command there as root (by `sudo -n` where the user isn't root). Raises
        errors.LinkDown."""

    def containers(self, host: Host) -> Sequence[Container] | None:
        """All of ours on that host, as Docker's event stream has it; None when nothing is known
        just now."""

    def take_changed(self) -> Collection[HostId]:
        """Hosts whose containers, or whose reach, changed since this was last asked."""


@dataclass(frozen=True, kw_only=True)
class LinkGauges:
    """How one link is."""

    host: str  # its name
    up: bool  # the connection stands and answers
    docker: bool  # Docker answers
    channels: int  # open just now
    rtt_s: float | None  # of the last byte that came back
    reconnects: int  # since this daemon started


class LinkBoard(Protocol):
    """Where the daemon posts how its links are, for the api's metrics and views. Lossy."""

    def post(self, gauges: Sequence[LinkGauges]) -> None: ...

    def read(self) -> Sequence[LinkGauges]:
        """The last that was posted; empty when that was a while ago."""


class ImagePushes(Protocol):
    """Streams of the runtime image to hosts, each in a process of its own."""

    def ensure(self, hosts: Sequence[Host]) -> None:
        """See to it that these get today's image: a few at a time, and none twice at once."""


@dataclass(frozen=True, kw_only=True)
class CommandOutcome:
    """What became of one command."""

    code: int  # exit code; 127 when there is no such program
    output: str  # both streams


class Proxy(Protocol):
    """What routes public names to sandboxes."""

    def publish(self, table: RouteTable) -> None:
        """Make this table the one in force and return when no request can be routed by an earlier
        one any more. Raises errors.ProxyRejected (the last good one stays in force),
        errors.ProxyUnavailable."""

    def published(self) -> str | None:
        """Digest of the table in force, asked from the running proxy; None when it is away."""


class Probe(Protocol):
    """Asks a public URL as a user would."""

    def answers(self, slug: Slug, timeout_s: float) -> bool:
        """Whether GET / of that app, through the proxy, gave a status below 400."""


class NudgeQueue(Protocol):
    """The work queue. Nudges may be lost or repeated."""

    def nudge(self, session_id: SessionId, queue: Queue) -> None:
        """Raises errors.QueueUnavailable."""

    def depth(self) -> dict[Queue, int]:
        """Nudges waiting per queue. Raises errors.QueueUnavailable."""


class Events(Protocol):
    """Wake-ups between processes: "something changed". Lossy; receivers also look by themselves."""

    def session_changed(self, session_id: SessionId) -> None: ...

    def inbox_changed(self, sandbox_id: SandboxId) -> None: ...

    def routes_changed(self) -> None: ...

    def pool_changed(self) -> None: ...

    def subscribe(self, topics: Sequence[str]) -> AbstractContextManager[Iterator[str]]:
        """Blocking iterator over topics that had news; yields "" about once a second when idle."""


class Bundles(Protocol):
    """Bundle bytes, by content."""

    def put(self, data: bytes) -> Sha256:
        """Keep; the same bytes twice are kept once."""

    def get(self, digest: Sha256) -> bytes:
        """Raises errors.NotFound."""

    def size(self, digest: Sha256) -> int:
        """In bytes, without reading them. Raises errors.NotFound."""

    def discard(self, digest: Sha256) -> None: ...

    def inspect(self, data: bytes) -> Manifest:
        """Check an untrusted archive without unpacking it to disk. Raises errors.InvalidInput
        (bundle_refused), errors.TooLarge."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """One app of the catalog."""

    name: str
    title: str
    description: str
    kind: str
    keywords: tuple[str, ...]
    emoji: str
    accent: str  # CSS colour
    digest: Sha256
    size_bytes: int


class Catalog(Protocol):
    """The built-in templates."""

    def list(self) -> Sequence[Template]: ...

    def get(self, name: str) -> Template | None: ...

    def data(self, digest: Sha256) -> bytes | None:
        """The bundle of a template, if that digest is one's."""
