"""JupyterHub with DockerSpawner: a server for each user, in a container, behind a proxy."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers.peer import Unavailable
from tests.e2e.installation import ROOT, free_ports, runtime_image, until

NAME = "JupyterHub with DockerSpawner"
_FOLDER = Path(__file__).parent
_BUILT = ROOT / "build" / "peers"  # what is installed here, kept between runs
_INSTALL_S = 600


@dataclass
class JupyterHub:
    """A hub, its proxy, and the token of a service that may start servers."""

    port: int
    token: str
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def start(self) -> float:
        user = f"user{next(self._numbers)}"
        self.call("POST", f"/hub/api/users/{user}", 201)
        started_at = time.perf_counter()
        # The hub answers when the server has: 201.
        self.call("POST", f"/hub/api/users/{user}/server", 201)
        until(lambda: self._status("GET", f"/user/{user}/") == 200, 60, f"{user} to answer")
        duration_s = time.perf_counter() - started_at
        self.call("DELETE", f"/hub/api/users/{user}/server", 204, 202)
        return duration_s

    def call(self, method: str, path: str, *expected: int) -> None:
        """Raises AssertionError unless the status is one of those expected."""
        status = self._status(method, path)
        assert status in expected, f"{method} {path}: {status}"

    def _status(self, method: str, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {"Authorization": f"token {self.token}", "Content-Length": "0"}
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()


@contextlib.contextmanager
def running() -> Iterator[JupyterHub]:
    """Install the hub if it isn't yet, and run it during the block. Raises Unavailable."""
    _install()
    port, api_port, hub_port = free_ports(3)
    hub = JupyterHub(port=port, token=secrets.token_hex(16))
    with tempfile.TemporaryDirectory(prefix="spawn-hub-", ignore_cleanup_errors=True) as folder:
        env = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "BENCH_PORT": str(port),
            "BENCH_API_PORT": str(api_port),
            "BENCH_HUB_PORT": str(hub_port),
            "BENCH_TOKEN": hub.token,
            "BENCH_IMAGE": runtime_image(),
            "BENCH_APP": (_FOLDER / "app.py").read_text(),
            "BENCH_PROXY": str(_BUILT / "node_modules" / ".bin" / "configurable-http-proxy"),
            "CONFIGPROXY_AUTH_TOKEN": secrets.token_hex(16),
        }
        log = Path(folder) / "hub.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [_BUILT / "venv" / "bin" / "jupyterhub", "-f", _FOLDER / "jupyterhub_config.py"],
                cwd=folder,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            try:
                until(lambda: _answers(hub, process), 60, "the hub to answer")
            except AssertionError as error:
                last = " ".join(log.read_text().splitlines()[-3:])[:300]
                raise Unavailable(f"it doesn't start: {last}") from error
            yield hub
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def _answers(hub: JupyterHub, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the hub ended"
    try:
        hub.call("GET", "/hub/api/users", 200)
    except (OSError, http.client.HTTPException, AssertionError):
        return False
    return True


def _install() -> None:
    """Make the peers' own environments: nothing of theirs gets into ours. Raises Unavailable."""
    wanted = "".join((_FOLDER / name).read_text() for name in ("requirements.txt", "package.json"))
    stamp = _BUILT / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(_BUILT, ignore_errors=True)
    _BUILT.mkdir(parents=True)
    shutil.copy(_FOLDER / "package.json", _BUILT)
    pip = _BUILT / "venv" / "bin" / "pip"
    try:
        _run(sys.executable, "-m", "venv", str(_BUILT / "venv"))
        _run(str(pip), "install", "-q", "-r", str(_FOLDER / "requirements.txt"))
        _run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(_BUILT))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", "") or str(error)
        raise Unavailable(f"it can't be installed: {detail.strip()[-300:]}") from error
    stamp.write_text(wanted)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True, timeout=_INSTALL_S)
