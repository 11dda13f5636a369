"""Twenty running apps of other users, each with a value in memory. None of them may notice."""

from __future__ import annotations

import http.client
import secrets
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bench.bounds import apps
from bench.bounds.visitors import Visitor
from tests.e2e.installation import Installation
from tests.fakes.llm.messages_api import MessagesApi

COUNT = 20
_AT_ONCE = 3
_PROMPT = "an app that keeps a value"
_VISIT_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Witness:
    """One app of one user."""

    owner: Visitor
    session_id: str
    url: str
    value: str  # what its process has in memory
    container_id: str


@dataclass
class Witnesses:
    """All of them."""

    spawn: Installation
    provider: MessagesApi
    all: list[Witness] = field(default_factory=list)

    def complete(self) -> None:
        """Make apps until there are COUNT. The model writes only the first one."""
        apps.write_counter(self.provider, _PROMPT)
        if not self.all:
            self.all.append(self._make())
        with ThreadPoolExecutor(_AT_ONCE) as makers:
            self.all += makers.map(lambda _: self._make(), range(COUNT - len(self.all)))

    def replace_changed(self) -> list[str]:
        """What became of those that are no longer as they were. Other apps take their places."""
        containers = containers_by_session(self.spawn)
        changes = {witness.session_id: self._change(witness, containers) for witness in self.all}
        for witness in self.all:
            if changes[witness.session_id]:
                witness.owner.end(witness.session_id)
        self.all = [witness for witness in self.all if not changes[witness.session_id]]
        self.complete()
        return [change for change in changes.values() if change]

    def answer(self, number: int) -> bool:
        """Whether an app answers with its value, or with the empty one after a restart."""
        try:
            return self.spawn.call_app(self.all[number % len(self.all)].url).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def _make(self) -> Witness:
        owner, value = Visitor(self.spawn), secrets.token_hex(8)
        status = owner.ready_app(prompt=_PROMPT)
        host = status["url"].split("//")[1].split(":")[0]
        response = self.spawn.call("POST", "/", raw=value.encode(), host=host)
        assert response.text == value, response.text
        return Witness(
            owner=owner,
            session_id=status["session_id"],
            url=status["url"],
            value=value,
            container_id=containers_by_session(self.spawn)[status["session_id"]],
        )

    def _change(self, witness: Witness, containers: dict[str, str]) -> str:
        response = witness.owner.call("GET", f"/api/status/{witness.session_id}")
        if response.status != 200 or not response.json["ready"]:
            return f"{witness.session_id} isn't ready: {response.text[:200]}"
        if containers.get(witness.session_id) != witness.container_id:
            return f"{witness.session_id} has another container"
        answer = self.spawn.call_app(witness.url)
        if answer.text != witness.value:
            return f"{witness.session_id} has lost its value: {answer.status} {answer.text[:80]}"
        return ""


class Visits:
    """Visits the witnesses in turn within its context, and counts those that fail."""

    def __init__(self, witnesses: Witnesses) -> None:
        self._witnesses = witnesses
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.count = 0
        self.failed = 0

    def __enter__(self) -> Visits:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_VISIT_EVERY_S):
            self.failed += not self._witnesses.answer(self.count)
            self.count += 1


def containers_by_session(spawn: Installation) -> dict[str, str]:
    """The id of each session's container on this machine."""
    label = "ai.spawn.sandbox"
    command = [
        *("docker", "ps", "--no-trunc", "--filter", f"label=ai.spawn.instance={spawn.instance}")
    ]
    command += ["--format", f'{{{{.Label "{label}"}}}} {{{{.ID}}}}']
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    containers = dict(line.split() for line in output.splitlines())
    return {
        sandbox["session_id"]: containers[sandbox["sandbox_id"]]
        for sandbox in spawn.admin("pool")["sandboxes"]
        if sandbox["session_id"] and sandbox["sandbox_id"] in containers
    }
