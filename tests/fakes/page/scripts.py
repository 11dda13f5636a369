"""The scripts that sessions of the fake page API follow: one step per poll, never by time.

A session follows the script of its first version, then that of each change. `api.py` plays them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Json = dict[str, Any]
WAITING_MAX = 5


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a session looks like from one poll on."""

    state: str
    progress: int
    message: str = ""
    queue_position: int | None = None
    seconds: float = 0.4  # spent in the step before this one
    error: Mapping[str, str] | None = None
    offer: Mapping[str, str] | None = None


QUEUED = Step(state="queued", progress=10, message="Waiting for a free sandbox", queue_position=2)
PROVISIONING = Step(state="provisioning", progress=30, message="Preparing a sandbox", seconds=1.2)
DEPLOYING = Step(state="deploying", progress=90, message="Starting your app", seconds=7.3)
READY = Step(state="ready", progress=100, message="Your app is running", seconds=0.9)
GONE = Step(state="destroyed", progress=100, message="This app is gone")
WRITTEN = (  # the script of a prompt
    QUEUED,
    PROVISIONING,
    Step(state="generating", progress=31, message="Claude is writing your app"),
    Step(state="generating", progress=58, message="Writing app.js", seconds=4.8),
    DEPLOYING,
    READY,
)
COPIED = (QUEUED, PROVISIONING, DEPLOYING, READY)  # the script of a template
BROKEN = (
    *WRITTEN[:-1],
    Step(
        state="failed",
        progress=100,
        message="The app did not start",
        error={
            "code": "app_not_ready",
            "message": "The app exited before it answered.\n"
            'Traceback (most recent call last):\n  File "main.py", line 3\n'
            "ModuleNotFoundError: No module named 'numpy'",
        },
    ),
)
UNANSWERED = (  # no provider could be reached
    *WRITTEN[:3],
    Step(
        state="failed",
        progress=100,
        message="The model can't be asked at the moment",
        error={
            "code": "provider_unavailable",
            "message": "The model can't be asked at the moment: every provider is overloaded.",
        },
        offer={"template": "kanban", "title": "Kanban board"},
    ),
)


@dataclass(frozen=True, kw_only=True)
class Course:
    """The course of a change: its steps and its result."""

    steps: tuple[Step, ...]
    summary: str = ""
    error: Mapping[str, str] | None = None


_CHANGING = (
    Step(state="generating", progress=31, message="Changing your app"),
    Step(state="generating", progress=58, message="Changing your app: writing app.py"),
    Step(state="deploying", progress=90, message="Changing your app: starting it"),
)
CHANGED = Course(steps=_CHANGING, summary="The header is blue, and the list can be searched.")
UNDONE = Course(
    steps=_CHANGING,
    error={
        "code": "app_not_healthy",
        "message": "The page / answered 500 three times.\n"
        'Traceback (most recent call last):\n  File "app.py", line 12\nKeyError: "streak"',
    },
)
RESTORED = Course(steps=(Step(state="deploying", progress=90, message="Going back to version 1"),))


@dataclass(kw_only=True)
class Scripted:
    """One session: its script, the current step, and its changes."""

    id: str
    user: str
    slug: str
    prompt: str
    template: str | None
    created_at: datetime
    expires_at: datetime
    script: tuple[Step, ...]
    reused: bool = False
    at: int = 0
    revision: int = 0
    phases: dict[str, float] = field(default_factory=lambda: {"queued": 0.0})
    version: int = 0  # the one that runs
    versions: list[Json] = field(default_factory=list)
    messages: list[Json] = field(default_factory=list)
    courses: list[Course] = field(default_factory=list)  # one for each of `messages`
    started: int = 0  # how many of `messages`

    @property
    def step(self) -> Step:
        return self.script[self.at]

    @property
    def running(self) -> Json | None:
        """The message that is being carried out."""
        return next((message for message in self.messages if message["state"] == "running"), None)

    @property
    def waiting(self) -> int:
        return sum(message["state"] == "queued" for message in self.messages)

    @property
    def is_served(self) -> bool:
        return self.step.state == "ready" or self.running is not None

    @property
    def is_over(self) -> bool:
        return self.step.state in {"failed", "destroying", "destroyed"}

    def advance(self) -> None:
        """Take the next step, or start the next change."""
        if self.at + 1 < len(self.script):
            state = self.step.state
            self.at += 1
            self.revision += self.script[self.at] != self.script[self.at - 1]
            self.phases[state] = round(self.phases.get(state, 0.0) + self.step.seconds, 2)
            self.phases.setdefault(self.step.state, 0.0)
            self._record_result()
        elif self.step.state == "ready" and self.waiting:
            self.messages[self.started]["state"] = "running"
            self.script, self.at = (*self.courses[self.started].steps, READY), 0
            self.started += 1
            self.revision += 1

    def _record_result(self) -> None:
        """Record the result if the script has reached its end."""
        if self.step.state == "ready" and not self.versions:
            self.add_version(healthy=True)
        elif self.step.state == "ready" and (message := self.running) is not None:
            self._end_change(message, self.courses[self.started - 1])
        elif self.is_over:
            for message in self.messages:
                if message["state"] in {"queued", "running"}:
                    error = {"code": "session_ended", "message": "the session has ended"}
                    message.update(state="failed", error=error)

    def _end_change(self, message: Json, course: Course) -> None:
        message["ended_at"] = self.created_at.isoformat()
        if course.error is not None:
            message.update(state="failed", error=dict(course.error))
            self.add_version(healthy=False, message=message["number"])
            return
        if message["restores"] is None:
            self.add_version(healthy=True, message=message["number"], summary=course.summary)
        else:
            self.version = message["restores"]
        message.update(state="done", version=self.version, summary=course.summary)

    def add_version(self, *, healthy: bool, message: int | None = None, summary: str = "") -> None:
        """Add a version. It runs if it is healthy."""
        number = len(self.versions) + 1
        self.version = number if healthy else self.version
        from_template = self.template is not None and number == 1
        self.versions.append(
            {
                "version": number,
                "title": "Habit tracker",
                "kind": "static",
                "size_bytes": 12_345,
                "created_at": self.created_at.isoformat(),
                "healthy": healthy,
                "message": message,
                "summary": summary,
                "provider": "" if from_template else "cache" if self.reused else "anthropic",
            }
        )

    def add_change(self, text: str, restores: int | None, course: Course) -> Json:
        """Add a change, which waits for its turn."""
        message: Json = {
            "number": len(self.messages) + 1,
            "kind": "message" if restores is None else "restore",
            "text": text,
            "restores": restores,
            "state": "queued",
            "created_at": self.created_at.isoformat(),
            "ended_at": None,
            "version": None,
            "summary": "",
            "error": None,
        }
        self.messages.append(message)
        self.courses.append(course)
        self.revision += 1
        return message

    def status(self, port: int) -> Json:
        step, change = self.step, self.running
        return {
            "session_id": self.id,
            "status": step.state,
            "progress": step.progress,
            "message": step.message,
            "ready": step.state == "ready",
            "url": f"http://{self.slug}.apps.localhost:{port}/" if self.is_served else None,
            "queue_position": step.queue_position,
            "phases": [{"name": name, "seconds": seconds} for name, seconds in self.phases.items()],
            "attempt": 1,
            "version": self.version,
            "change": change
            and {name: change[name] for name in ("number", "kind", "text", "restores")},
            "waiting": self.waiting,
            "template": self.template,
            "reused": self.reused,
            "prompt": self.prompt,
            "tier": "free",
            "created_at": self.created_at.isoformat(),
            "expires_at": self.expires_at.isoformat(),
            "error": step.error,
            "offer": step.offer,
        }

    def usage(self) -> Json:
        """Four calls for each version that Claude wrote."""
        calls = 4 * sum(version["provider"] == "anthropic" for version in self.versions)
        cost = round(calls * 0.00308, 6)
        tokens = {"input_tokens": calls * 900, "output_tokens": calls * 120}
        return {"calls": calls, **tokens, "cost_usd": cost, "by_provider": []}
