"""A whole SpawnAI for one test: spawnctl starts it, with free ports and its own state folder."""

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
class Response:
    """An HTTP response, read to its end."""

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
    """One installation, and what a user, a program and an operator can do with it."""

    state_dir: Path
    http_port: int
    env: dict[str, str]
    cookies: dict[str, str] = field(default_factory=dict)

    # --- as an operator ---------------------------------------------------------------------------

    def spawnctl(
        self, *args: str, check: bool = True, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run spawnctl. With `check`, raises AssertionError if it fails. `settings` are further
        environment variables."""
        result = subprocess.run(
            [sys.executable, "-m", "orchestrator.entrypoints.cli.main", *args],
            cwd=ROOT,
            env={**self.env, **settings},
            text=True,
            capture_output=True,
            timeout=240,
            check=False,
        )
        if check and result.returncode != 0:
            raise AssertionError(
                f"spawnctl {args}: {result.stdout}\n{result.stderr}\n{self.logs()}"
            )
        return result

    @property
    def operator_key(self) -> str:
        return (self.state_dir / "operator.key").read_text().strip()

    @property
    def instance(self) -> str:
        return (self.state_dir / "instance").read_text().strip()

    def admin(self, path: str) -> Any:
        """GET from the admin API, as JSON."""
        response = self.call("GET", f"/api/admin/{path}", key=self.operator_key)
        assert response.status == 200, response.text
        return response.json

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
    ) -> Response:
        """Send one request through the proxy."""
        all_headers = {"Host": f"{host}:{self.http_port}", **(headers or {})}
        if key is not None:
            all_headers["Authorization"] = f"Bearer {key}"
        data = raw
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            all_headers.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=70)
        try:
            connection.request(method, path, body=data, headers=all_headers)
            response = connection.getresponse()
            return Response(
                status=response.status,
                headers={name.lower(): value for name, value in response.getheaders()},
                body=response.read(),
            )
        finally:
            connection.close()

    def call_patiently(self, method: str, path: str, body: Any = None, **options: Any) -> Response:
        """Like `call`, with retries while the control plane restarts, or has been asked too often
        from this address: for at most 60 s."""

        def attempt() -> Response | None:
            try:
                response = self.call(method, path, body, **options)
            except (OSError, http.client.HTTPException):
                return None
            is_crowd = response.status == 429 and "too_many_requests" in response.text
            return None if is_crowd or response.status in {502, 503, 504} else response

        answered: Response = until(attempt, 60, f"{method} {path} to be answered")
        return answered

    def create(self, prompt: str = "", **fields: Any) -> dict[str, Any]:
        response = self.call_patiently(
            "POST", "/api/sessions", {"prompt": prompt, **fields}, key=self.operator_key
        )
        assert response.status == 202, response.text
        return dict(response.json)

    def status(self, session_id: str) -> dict[str, Any]:
        response = self.call_patiently("GET", f"/api/status/{session_id}", key=self.operator_key)
        assert response.status == 200, response.text
        return dict(response.json)

    def wait_for(self, session_id: str, *states: str, within_s: float = 90) -> dict[str, Any]:
        """Wait until the session is in one of these states, and return its status. On timeout the
        error shows the status and the logs."""

        def status_in_states() -> dict[str, Any] | None:
            status = self.status(session_id)
            return status if status["status"] in states else None

        try:
            status: dict[str, Any] = until(
                status_in_states, within_s, f"{session_id} to be {' or '.join(states)}"
            )
        except AssertionError as error:
            last = self.status(session_id)
            raise AssertionError(f"{error}; it is {last}\n{self.logs()}") from None
        return status

    def call_app(
        self, url: str, path: str = "/", method: str = "GET", body: Any = None
    ) -> Response:
        """Send one request to an app at its public URL."""
        host = url.split("//")[1].split(":")[0]
        return self.call(method, path, body, host=host)

    # --- processes and containers -----------------------------------------------------------------

    def kill_daemon(self) -> None:
        """kill -9 the leading daemon. Its supervisor starts another one."""
        self.kill("orchestrator.entrypoints.daemon")

    def containers(self) -> list[Any]:
        """All Docker containers of this installation: its sandboxes, and the probe of an admission.

        A host is admitted again, with a probe, each time its Docker was away.
        """
        with contextlib.closing(docker.from_env()) as client:
            return client.containers.list(
                all=True,
                filters={"label": f"ai.spawn.instance={self.instance}"},
                ignore_removed=True,  # one may go between the list and its inspection
            )

    def sandboxes(self) -> dict[str, Any]:
        """The containers of the sandboxes, by sandbox id."""
        labelled = ((item.labels.get("ai.spawn.sandbox"), item) for item in self.containers())
        return {sandbox_id: item for sandbox_id, item in labelled if sandbox_id is not None}

    def supervisor_pid(self) -> int:
        return int((self.state_dir / "supervisor.lock").read_text())

    def pids(self, marker: str, supervisor: int | None = None) -> list[int]:
        """The processes whose command line contains `marker`, parents first.

        Without the pid of its supervisor, it is read from the state folder.
        """
        pids = _descendants(supervisor or self.supervisor_pid())
        return [pid for pid in pids if marker in _cmdline(pid)]

    def kill(self, marker: str, index: int = 0) -> None:
        """kill -9 the process number `index` of those with `marker`, if there is one."""
        pids = self.pids(marker)
        if len(pids) > index:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[index], signal.SIGKILL)

    def logs(self) -> str:
        """The last lines of each process's log."""
        parts = []
        for path in sorted((self.state_dir / "log").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-15:]
            parts.append(f"--- {path.name}\n" + "\n".join(line[:400] for line in lines))
        return "\n".join(parts)


def until(condition: Callable[[], Any], within_s: float, description: str) -> Any:
    """Poll the condition until it is truthy, and return its value. Raises AssertionError with the
    description at the timeout."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within_s:.0f} s in vain for {description}")
        pause.wait(_POLL_S)


@contextlib.contextmanager
def installed(*options: str, ready: bool = True, **settings: str) -> Iterator[Installation]:
    """Start an installation, and remove all of it afterwards.

    `options` are those of `spawnctl up`, `settings` are environment variables. With `ready`, wait
    until it can serve apps, which needs a host.
    """
    # Not in pytest's temporary folder: the proxy's workers can't read that one.
    folder = Path(tempfile.mkdtemp(prefix="spawn-e2e-"))
    folder.chmod(0o711)
    http_port, control_port = free_ports(2)
    low = _port_block()
    env = {
        **{name: value for name, value in os.environ.items() if not _is_our_setting(name)},
        "SPAWN_STATE_DIR": str(folder / "s"),
        "SPAWN_HTTP_PORT": str(http_port),
        "SPAWN_CONTROL_PORT": str(control_port),
        "SPAWN_PORTS": f"{low}-{low + 99}",
        "SPAWN_RUNTIME_IMAGE": runtime_image(),
        "SPAWN_STARTS_PER_ADDRESS": "1000000",  # all visitors of the tests have one address
        "PYTHONPATH": str(ROOT),
        **settings,
    }
    state_dir = Path(env["SPAWN_STATE_DIR"])
    spawn = Installation(state_dir=state_dir, http_port=http_port, env=env)
    try:
        spawn.spawnctl("up", "--detach", *options)
        if ready:
            until(lambda: spawn.call("GET", "/ready").status == 200, _READY_S, "readiness")
        yield spawn
    finally:
        spawn.spawnctl("down", check=False)
        shutil.rmtree(folder, ignore_errors=True)


def runtime_image() -> str:
    """The runtime image of this checkout. Built at the first call."""
    built = os.environ.get("SPAWN_TEST_RUNTIME_IMAGE")
    if built:
        return built
    base = _last_line(["bash", str(ROOT / "runtime-image" / "base.sh")])
    image = _last_line(["bash", str(ROOT / "runtime-image" / "build.sh"), "--base", base])
    os.environ["SPAWN_TEST_RUNTIME_IMAGE"] = image
    return image


_blocks = itertools.count()


def _port_block() -> int:
    """The first of 100 ports for sandboxes. No two installations of a test run share a port."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return 21000 + (worker % 4 * 20 + next(_blocks) % 20) * 100


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


def _is_our_setting(name: str) -> bool:
    return name.startswith(("SPAWN_", "ANTHROPIC_")) and name != "SPAWN_TEST_RUNTIME_IMAGE"


def _last_line(command: list[str]) -> str:
    result = subprocess.run(command, text=True, capture_output=True, check=False, timeout=1200)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip().splitlines()[-1]


def _descendants(root: int) -> list[int]:
    """The processes below `root`, parents first."""
    children_of: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                children_of.setdefault(int(stat[1]), []).append(int(entry.name))
    descendants, queue = [], [root]
    while queue:
        children = sorted(children_of.get(queue.pop(0), []))
        descendants += children
        queue += children
    return descendants


def _cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
