"""Changes of an app, and its versions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from orchestrator.domain.sessions.changes import ChangeState
from orchestrator.entrypoints.api.answers.base import Error, Next, Time
from orchestrator.entrypoints.api.answers.sessions import ChangeInProgress, Status


class Message(ChangeInProgress):
    """A change that was asked for, and what came of it."""

    state: ChangeState
    created_at: Time
    ended_at: Time | None
    version: Annotated[int | None, Field(description="The version that runs because of it.")]
    summary: Annotated[str, Field(description="Claude's own words about what it did.")]
    error: Error | None


class MessagePage(TypedDict):
    """Changes, oldest first. `next` leads to those before them."""

    messages: list[Message]
    next: Next


class AddedChange(TypedDict):
    """A change that was just asked for, and its session."""

    message: Message
    session: Status


class Version(TypedDict):
    """A version of an app."""

    version: int
    title: str
    kind: str
    size_bytes: int
    created_at: Time
    healthy: Annotated[bool, Field(description="False: it never passed its check.")]
    running: bool
    message: Annotated[int | None, Field(description="The number of the change that made it.")]
    summary: str
    provider: Annotated[str, Field(description="Who wrote it; empty: it is a template.")]


class Versions(TypedDict):
    """The versions of an app, oldest first."""

    versions: list[Version]
