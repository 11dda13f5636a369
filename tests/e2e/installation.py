"""A whole SpawnAI of a test's own: free ports, a state folder of its own, started by spawnctl."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

ROOT = Path(__file__).resolve().parents[2]
_READY_S = 120
_POLL_S = 0.05


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


@dataclass
class Installation:
    """What a user, a program and an operator can do with one installation."""

    state_dir: Path
    http_port: int
    env: dict[str, str]
    cookies: dict[str, str] = field(default_factory=dict)

    # --- as an operator ---------------------------------------------------------------------------

    def spawnctl(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.entrypoints.cli.main", *args],
            cwd=ROOT,
            env=self.env,
            text=True,
            capture_output=True,
            timeout=240,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"spawnctl {args}: {done.stdout}\n{done.stderr}\n{self.logs()}")
        return done

    @property
    def operator_key(self) -> str:
        return (self.state_dir / "operator.key").read_text().strip()

    @property
    def instance(self) -> str:
        return (self.state_dir / "instance").read_text().strip()

    def admin(self, path: str) -> Any:
        answer = self.call("GET", f"/api/admin/{path}", key=self.operator_key)
        assert answer.status == 200, answer.text
        return answer.json

    # --- as a program or a visitor ----------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        host: str = "localhost",
        raw: bytes | None = None,
    ) -> Answer:
        """One request through the proxy."""
        sent = {"Host": f"{host}:{self.http_port}", **(headers or {})}
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        data = raw
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        link = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=70)
        try:
            link.request(method, path, body=data, headers=sent)
            answer = link.getresponse()
            return Answer(
                status=answer.status,
                headers={name.lower(): value for name, value in answer.getheaders()},
                body=answer.read(),
            )
        finally:
            link.close()

    def patient(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """The same, for as long as the control plane is being restarted."""

        def attempt() -> Answer | None:
            try:
                answer = self.call(method, path, body, **options)
            except (OSError, http.client.HTTPException):
                return None
            return None if answer.status in {502, 503, 504} else answer

        found = until(attempt, 60, f"{method} {path} to be answered")
        assert found is not None
        return found

    def create(self, prompt: str = "", **more: Any) -> dict[str, Any]:
        answer = self.patient(
            "POST", "/api/sessions", {"prompt": prompt, **more}, key=self.operator_key
        )
        assert answer.status == 202, answer.text
        return dict(answer.json)

    def status(self, session_id: str) -> dict[str, Any]:
        answer = self.patient("GET", f"/api/status/{session_id}", key=self.operator_key)
        assert answer.status == 200, answer.text
        return dict(answer.json)

    def wait_for(self, session_id: str, *states: str, within_s: float = 90) -> dict[str, Any]:
        """The status once it is one of these; fails with the logs when it isn't in time."""

        def there() -> dict[str, Any] | None:
            now = self.status(session_id)
            return now if now["status"] in states else None

        try:
            found = until(there, within_s, f"{session_id} to be {' or '.join(states)}")
        except AssertionError as late:
            last = self.status(session_id)
            raise AssertionError(f"{late}; it is {last}\n{self.logs()}") from None
        assert found is not None
        return found

    def app(self, url: str, path: str = "/", method: str = "GET", body: Any = None) -> Answer:
        """Ask an app at its public URL."""
        host = url.split("//")[1].split(":")[0]
        return self.call(method, path, body, host=host)

    # --- underneath -------------------------------------------------------------------------------

    def kill_daemon(self) -> None:
        """kill -9 of the leader; its supervisor starts another one."""
        self.kill("orchestrator.entrypoints.daemon")

    def containers(self) -> list[Any]:
        with contextlib.closing(docker.from_env()) as client:
            return client.containers.list(
                all=True, filters={"label": f"ai.spawn.instance={self.instance}"}
            )

    def supervisor_pid(self) -> int:
        return int((self.state_dir / "supervisor.lock").read_text())

    def pids(self, marker: str) -> list[int]:
        """Processes of this installation whose command line holds `marker`, parents first."""
        ours = _descendants(self.supervisor_pid())
        return [pid for pid in ours if marker in _cmdline(pid)]

    def kill(self, marker: str, index: int = 0) -> None:
        """kill -9, as the kernel or an operator in a hurry would."""
        pids = self.pids(marker)
        if len(pids) > index:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[index], signal.SIGKILL)

    def logs(self) -> str:
        parts = []
        for path in sorted((self.state_dir / "log").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-15:]
            parts.append(f"--- {path.name}\n" + "\n".join(line[:400] for line in lines))
        return "\n".join(parts)


def until(there: Callable[[], Any], within_s: float, what: str) -> Any:
    """Ask until the answer is truthy. Fails, naming what it waited for, when time is up."""
    ends = time.monotonic() + within_s
    pause = threading.Event()
    while True:
        found = there()
        if found:
            return found
        if time.monotonic() > ends:
            raise AssertionError(f"waited {within_s:.0f} s in vain for {what}")
        pause.wait(_POLL_S)


@contextlib.contextmanager
def installed(*options: str, ready: bool = True, **settings: str) -> Iterator[Installation]:
    """Start one (`options` are those of `up`), and see to it that nothing is left afterwards.
    `ready`: wait until it could give out links; without a host yet it can't."""
    # Not below pytest's own folder: that one is closed to the proxy's workers.
    folder = Path(tempfile.mkdtemp(prefix="spawn-e2e-"))
    folder.chmod(0o711)
    http_port, api_port, control_port = free_ports(3)
    low = _port_block()
    env = {
        **{name: value for name, value in os.environ.items() if not _is_ours(name)},
        "SPAWN_STATE_DIR": str(folder / "s"),
        "SPAWN_HTTP_PORT": str(http_port),
        "SPAWN_API_PORT": str(api_port),
        "SPAWN_CONTROL_PORT": str(control_port),
        "SPAWN_PORTS": f"{low}-{low + 99}",
        "SPAWN_RUNTIME_IMAGE": runtime_image(),
        "PYTHONPATH": str(ROOT),
        **settings,
    }
    one = Installation(state_dir=folder / "s", http_port=http_port, env=env)
    try:
        one.spawnctl("up", "--detach", *options)
        if ready:
            until(lambda: one.call("GET", "/ready").status == 200, _READY_S, "readiness")
        yield one
    finally:
        one.spawnctl("down", check=False)
        shutil.rmtree(folder, ignore_errors=True)


def runtime_image() -> str:
    """The runtime image of this checkout; built when it isn't there yet."""
    known = os.environ.get("SPAWN_TEST_RUNTIME_IMAGE")
    if known:
        return known
    base = _last_line(["bash", str(ROOT / "runtime-image" / "base.sh")])
    image = _last_line(["bash", str(ROOT / "runtime-image" / "build.sh"), "--base", base])
    os.environ["SPAWN_TEST_RUNTIME_IMAGE"] = image
    return image


_blocks = itertools.count()


def _port_block() -> int:
    """First of a hundred ports for sandboxes; no two installations of a test run share any."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return 21000 + (worker % 4 * 20 + next(_blocks) % 20) * 100


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now, all different."""
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(socket.socket()) for _ in range(count)]
        for link in links:
            link.bind(("127.0.0.1", 0))
        return [link.getsockname()[1] for link in links]


def _is_ours(name: str) -> bool:
    return name.startswith(("SPAWN_", "ANTHROPIC_")) and name != "SPAWN_TEST_RUNTIME_IMAGE"


def _last_line(command: list[str]) -> str:
    done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]


def _descendants(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(stat[1]), []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        children = sorted(parents.get(queue.pop(0), []))
        found += children
        queue += children
    return found


def _cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
