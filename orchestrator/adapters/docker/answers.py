"""What a Docker engine answers, parsed once into bounded values.

A host is trusted with its own sandboxes and with nothing else. Whatever its engine answers, the
outcome is a value of ours or errors.EngineUnavailable (docker_answers_oddly), and so it concerns
that host alone. watch.py and engine.py call this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

from orchestrator.adapters.docker.flags import SANDBOX_LABEL
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SandboxId
from orchestrator.domain.pool.sandbox_diagnosis import Container

LIST_MAX_BYTES = 32 * 1024**2  # a list of containers; one entry takes about 2 KiB
ITEM_MAX_CHARS = 64 * 1024  # of one entry
EVENT_MAX_BYTES = 256 * 1024  # one event; it has the container's labels
_CONTAINERS_MAX = 10_000  # of this installation, on one host
_CPUS_MAX = 10_000  # of a host
_MEMORY_MAX_BYTES = 1024**5
_TEXT_MAX = 4096  # characters of one field
_NOTE_MAX = 200  # characters of a note for people
_DECODER = json.JSONDecoder()
_OPENING, _COMMA, _CLOSING = (
    re.compile(rf"[ \t\r\n]*{mark}") for mark in (r"\[[ \t\r\n]*", ",[ \t\r\n]*", r"\][ \t\r\n]*\Z")
)
_MAPPED = ("name=userns", "name=rootless")  # security options


@dataclass(frozen=True, kw_only=True)
class ContainerEvent:
    """A container of ours was created, started, has ended or was removed."""

    action: str  # create, start, die or destroy
    container: Container  # as it is after the event


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What we need to know of an engine itself."""

    version: str
    storage_driver: str
    root: str  # folder that holds images and containers
    cgroup_version: int
    memory_bytes: int
    cpus: int
    security_options: tuple[str, ...]

    @property
    def maps_users(self) -> bool:
        """Whether users in containers are others outside: userns-remap, or a rootless engine."""
        return any(option.startswith(_MAPPED) for option in self.security_options)


def parse_json(text: str | bytes, what: str) -> Any:
    """The value of a JSON text. `what` completes the message "it sent ... that isn't JSON"."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise odd(f"{what} isn't JSON") from error


def parse_containers(answer: object) -> Sequence[Container]:
    """The sandboxes in the answer to GET /containers/json."""
    if not isinstance(answer, list):
        raise odd("its list of containers is no list")
    check_count(answer)
    containers = (parse_container(item) for item in answer)
    return tuple(container for container in containers if container is not None)


def list_items(body: bytes, what: str) -> Iterator[object]:
    """The items of a JSON list, each parsed when it is asked for.

    So a caller on an event loop can let others run in between: one long list, parsed whole, holds
    the interpreter for seconds. An item has at most ITEM_MAX_CHARS. Raises errors.EngineUnavailable
    (docker_answers_oddly); `what` completes the message as in parse_json.
    """
    bad = odd(f"{what} is no list in JSON")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise bad from error
    at = _end_of(_OPENING, text, 0, bad)
    if _CLOSING.match(text, at):
        return
    while True:
        try:
            item, length = _DECODER.raw_decode(text[at : at + ITEM_MAX_CHARS])
        except (ValueError, RecursionError) as error:
            raise bad from error
        yield item
        at += length
        if _CLOSING.match(text, at):
            return
        at = _end_of(_COMMA, text, at, bad)


def _end_of(mark: re.Pattern[str], text: str, at: int, bad: errors.EngineUnavailable) -> int:
    match = mark.match(text, at)
    if match is None:
        raise bad
    return match.end()


def check_count(containers: Sized) -> None:
    """Refuse more containers than a host can have, whether its list names them or its events."""
    if len(containers) > _CONTAINERS_MAX:
        raise odd(f"it names more than {_CONTAINERS_MAX} containers of this installation")


def parse_event(line: str | bytes) -> ContainerEvent | None:
    """One line of GET /events; None if it concerns no sandbox."""
    event = _mapping(parse_json(line, "an event"), "an event")
    actor = _mapping(event.get("Actor"), "an event's Actor")
    attributes = _mapping(actor.get("Attributes"), "an event's Attributes")
    sandbox_id = _sandbox_id(attributes)
    if sandbox_id is None:
        return None
    action = _text(event, "Action")
    return ContainerEvent(
        action=action,
        container=Container(
            id=_text(actor, "ID"),
            sandbox_id=sandbox_id,
            running=action == "start",
            exited=action == "die",
            exit_note=_event_note(action, attributes),
        ),
    )


def parse_info(answer: object) -> EngineFacts:
    """The answer to GET /info."""
    info = _mapping(answer, "its description")
    options = info.get("SecurityOptions") or ()
    if not isinstance(options, list | tuple):
        raise odd("SecurityOptions is no list")
    return EngineFacts(
        version=_text(info, "ServerVersion"),
        storage_driver=_text(info, "Driver"),
        root=_text(info, "DockerRootDir"),
        cgroup_version=_number(
            {"CgroupVersion": info.get("CgroupVersion") or 1}, "CgroupVersion", 2
        ),
        memory_bytes=_number(info, "MemTotal", _MEMORY_MAX_BYTES),
        cpus=_number(info, "NCPU", _CPUS_MAX),
        security_options=tuple(str(option)[:_NOTE_MAX] for option in options),
    )


def odd(what: str) -> errors.EngineUnavailable:
    """The error for an answer that no Docker engine gives."""
    return errors.EngineUnavailable(
        f"Docker answers oddly: {what}. Does something else listen on its socket there?",
        code="docker_answers_oddly",
    )


def parse_container(answer: object) -> Container | None:
    """One item of such a list; None if it is no sandbox."""
    item = _mapping(answer, "a container")
    sandbox_id = _sandbox_id(_mapping(item.get("Labels"), "a container's Labels"))
    if sandbox_id is None:
        return None
    state = _text(item, "State")
    return Container(
        id=_text(item, "Id"),
        sandbox_id=sandbox_id,
        running=state == "running",
        exited=state in {"exited", "dead"},
        exit_note="" if state == "running" else _text(item, "Status")[:_NOTE_MAX],
    )


def _sandbox_id(labels: Mapping[str, Any]) -> SandboxId | None:
    """The id in the label, or None if the container is no sandbox. It becomes part of URLs."""
    value = labels.get(SANDBOX_LABEL)
    return SandboxId(value) if isinstance(value, str) and ids.is_id(value, "sbx") else None


def _event_note(action: str, attributes: Mapping[str, Any]) -> str:
    if action == "start":
        return ""
    if action == "die":
        return f"exit code {str(attributes.get('exitCode', '?'))[:10]}"
    return "created"


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise odd(f"{what} is no object")
    return value


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or len(value) > _TEXT_MAX:
        raise odd(f"{name} is no text")
    return value


def _number(data: Mapping[str, Any], name: str, most: int) -> int:
    """A whole number from 1 to `most`."""
    try:
        number = int(data[name])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise odd(f"{name} is no number") from error
    if not 1 <= number <= most:
        raise odd(f"{name} is no number from 1 to {most}")
    return number
