"""The topics of wake-ups. A topic is a kind, for some kinds with ":" and the id of its subject."""

from __future__ import annotations

SESSION = "session"  # with the id of the session that changed
INBOX = "inbox"  # with the id of the sandbox that has something to do
ROUTES = "routes"  # a sandbox was placed, or its route is to be withdrawn
SWITCHES = "switches"  # an app has another sandbox, to which its public name is to lead at once
POOL = "pool"  # a sandbox was claimed, became warm, ended its start, lost its route or is gone
HOSTS = "hosts"  # a host has joined or left, or takes sandboxes, or not any more
WALK = "walk"  # with the id of a session whose public address should be walked
DUE = "due"  # with the id of a session that needs a look, of which no worker will hear


def topic_of(kind: str, subject: str) -> str:
    return f"{kind}:{subject}"


def split(topic: str) -> tuple[str, str]:
    """The kind and the id of its subject, "" without one."""
    kind, _, subject = topic.partition(":")
    return kind, subject
