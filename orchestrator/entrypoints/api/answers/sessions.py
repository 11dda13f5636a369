"""Sessions, as their owners and operators see them, and the templates that start at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from orchestrator.domain.pool.sandbox import SandboxState
from orchestrator.domain.sessions.changes import ChangeKind
from orchestrator.domain.sessions.session import SessionState, Tier, Wanted
from orchestrator.entrypoints.api.answers.base import Error, Next, Time


class Phase(TypedDict):
    """How long the session has been in a state, over all attempts."""

    name: SessionState
    seconds: float


class ChangeInProgress(TypedDict):
    """What is being changed. `restores` is the version that runs again; null: a message."""

    number: Annotated[int, Field(description="1, 2, ... within the session.")]
    kind: ChangeKind
    text: str
    restores: int | None


class Offer(TypedDict):
    """A template to start instead of an app that couldn't be made."""

    template: str
    title: str


class Status(TypedDict):
    """A session."""

    session_id: str
    status: SessionState
    progress: Annotated[int, Field(ge=0, le=100)]
    message: Annotated[str, Field(description="What happens now, for people.")]
    ready: bool
    url: Annotated[
        str | None,
        Field(description="Set as soon as the app runs, and while it is being changed."),
    ]
    queue_position: Annotated[int | None, Field(description="From 1; null: it doesn't wait.")]
    phases: list[Phase]
    attempt: int
    version: Annotated[int, Field(description="The one that runs; 0: none has run yet.")]
    change: ChangeInProgress | None
    waiting: Annotated[int, Field(description="Changes that wait for their turn.")]
    template: str | None
    reused: Annotated[bool, Field(description="An equal prompt had been answered before.")]
    prompt: str
    tier: Tier
    created_at: Time
    expires_at: Time
    error: Error | None
    offer: Offer | None


class ShortPrompt(TypedDict):
    """The prompt in lists: the session's own status has all of it."""

    prompt: str
    prompt_is_cut: bool


class ListedStatus(Status):
    """A session in a list."""

    prompt_is_cut: Annotated[bool, Field(description="The status of the session has all of it.")]


class SessionPage(TypedDict):
    """Sessions, those that haven't ended first; newest first within each."""

    sessions: list[ListedStatus]
    next: Next


class HistoryEntry(TypedDict):
    """A state that the session entered."""

    state: SessionState
    at: Time


class OperatorStatus(Status):
    """A session, as operators see it."""

    user_id: str
    sandbox_id: str | None
    wanted: Wanted
    slug: str | None
    revision: int
    history: Annotated[list[HistoryEntry], Field(description="The last 50, oldest first.")]


class OperatorListedStatus(OperatorStatus):
    """Anybody's session in a list."""

    prompt_is_cut: bool
    host: Annotated[str | None, Field(description="The name of the host that it runs on.")]


class OperatorSessionPage(TypedDict):
    """Everybody's sessions, those that haven't ended first; newest first within each."""

    sessions: list[OperatorListedStatus]
    next: Next


class Sandbox(TypedDict):
    """A sandbox of the pool."""

    sandbox_id: str
    state: SandboxState
    session_id: str | None
    host: str
    port: int
    slug: str
    routed: bool
    container_id: str | None
    created_at: Time
    reason: Annotated[str, Field(description="Why it isn't well; empty: it is.")]


class OperatorSession(OperatorStatus):
    """A session and its sandbox."""

    host: str | None
    sandbox: Sandbox | None


class Template(TypedDict):
    """A ready-made app."""

    name: str
    title: str
    description: str
    kind: str
    keywords: list[str]
    emoji: str
    accent: Annotated[str, Field(description="A colour of CSS.")]


class Templates(TypedDict):
    """All of them."""

    templates: list[Template]
