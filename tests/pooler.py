"""PgBouncer in front of the tests' PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import make_url

_USER = "postgres"  # it refuses to run as root
_START_S = 20


@contextlib.contextmanager
def pooled(url: str, mode: str, *lines: str) -> Iterator[str]:
    """The URL of the same database behind a PgBouncer in this mode, with two connections.

    `lines` are more of its settings.
    """
    program = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
    assert program, "these tests need PgBouncer: apt install pgbouncer"
    server = make_url(url)
    folder = Path(tempfile.mkdtemp(prefix="spawn-pooler-"))
    port = _free_port()
    settings = folder / "pgbouncer.ini"
    target = f"host={server.query['host']} port={server.query['port']} user={server.username}"
    settings.write_text(
        "\n".join(
            (
                "[databases]",
                f"* = {target}",
                "[pgbouncer]",
                "listen_addr = 127.0.0.1",
                f"listen_port = {port}",
                f"unix_socket_dir = {folder}",
                "auth_type = any",
                f"pool_mode = {mode}",
                "default_pool_size = 2",
                *lines,
            )
        )
    )
    command = [program, str(settings)]
    if os.geteuid() == 0:
        shutil.chown(folder, _USER, pwd.getpwnam(_USER).pw_gid)
        command = [program, "-u", _USER, str(settings)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until_listening(process, port, folder / "log")
        pooled_url = server.set(host="127.0.0.1", port=port, query={})
        yield pooled_url.render_as_string(hide_password=False)
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline_s = time.monotonic() + _START_S
    pause = threading.Event()
    while True:
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        is_running = process.poll() is None and time.monotonic() < deadline_s
        assert is_running, f"PgBouncer did not start: {log.read_text(errors='replace')}"
        pause.wait(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
