"""Checks of the Makefile, the engine script and the lock files. They start no server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")
NODE_LOCKS = ("runtime-image/node", "runtime-image/browser", "tests/claude_code")
SOCKET = "unix:///var/run/docker.sock"
_DEADLINE_S = 60


def test_make_alone_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[0].split())

    output = _run("make", "--no-print-directory").stdout

    assert set(re.findall(r"^  make (\S+) +\S", output, re.MULTILINE)) == targets


def test_stopping_the_engine_spares_a_process_that_inherited_its_pid(tmp_path: Path) -> None:
    with _process("--something-else") as innocent:
        _pid_file(tmp_path).write_text(str(innocent.pid))

        result = _engine("stop", "--force", state=tmp_path)

        assert result.returncode == 0
        assert innocent.poll() is None


def test_stopping_the_engine_ends_the_one_that_was_started_here(tmp_path: Path) -> None:
    pid_file = _pid_file(tmp_path)
    with _process("--pidfile", str(pid_file)) as engine:
        pid_file.write_text(str(engine.pid))

        result = _engine("stop", "--force", state=tmp_path)

        assert result.returncode == 0, result.stderr
        assert engine.wait(_DEADLINE_S) != 0
        assert not pid_file.exists()


# Starts a process for the engine and one for its user, if there is one, and stops the engine. No
# other process is in its namespace.
_STOP_BESIDE = """
pause() {
    "$PYTHON" -c "$PAUSE" "$@" &
    until grep -qszxF "$PAUSE" /proc/$!/cmdline; do :; done
}
pause --pidfile "$PIDFILE"
echo $! >"$PIDFILE"
[[ -z $BESIDE ]] || pause $BESIDE
deploy/engine.sh stop
"""


@pytest.mark.parametrize(
    ("docker", "user", "reason"),
    [
        ("exit 0", "", ""),
        ("exit 0", "-m orchestrator.entrypoints.supervisor", "may need it"),
        ("exit 0", "/opt/spawnai/deploy/install.sh up", "may need it"),
        ("exit 0", "deploy/engine.sh run spawnctl up", "may need it"),
        ("exit 0", "deploy/engine.sh stop", ""),
        ("echo 0123456789ab", "", "containers run on it"),
        ("exit 1", "", "doesn't say"),
    ],
)
def test_an_engine_goes_on_while_somebody_uses_it(
    tmp_path: Path, docker: str, user: str, reason: str
) -> None:
    pid_file = _pid_file(tmp_path)
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f"#!/bin/bash\n{docker}\n")
    program.chmod(0o755)

    result = _run(
        *("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"),
        *("bash", "-c", _STOP_BESIDE),
        SPAWN_STATE_DIR=str(tmp_path),
        DOCKER_HOST=SOCKET,
        PATH=f"{program.parent}:{os.environ['PATH']}",
        PYTHON=sys.executable,
        PAUSE="import signal; signal.pause()",
        PIDFILE=str(pid_file),
        BESIDE=user,
    )

    assert result.returncode == 0, result.stderr
    assert pid_file.exists() is bool(reason), result.stderr
    assert reason in result.stderr


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd starts the engine here")
def test_an_engine_that_we_start_may_publish_many_connections(tmp_path: Path) -> None:
    """Each visitor of an app takes two descriptors of the process that publishes its port."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script = '#!/bin/bash\nulimit -n >"$0.limit"\necho $$ >"$2"\nexec {sleep} --pidfile "$2"\n'
    sleeper = f"{sys.executable} -c 'import signal; signal.pause()'"
    (programs / "dockerd").write_text(script.format(sleep=sleeper))
    (programs / "docker").write_text('#!/bin/bash\n[[ -s $(dirname "$0")/dockerd.limit ]]\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    limited = ("bash", "-c", 'ulimit -Sn 1024; exec deploy/engine.sh "$@"', "engine.sh")
    started = _run(*limited, "ensure", SPAWN_STATE_DIR=str(tmp_path), PATH=path, DOCKER_HOST=SOCKET)
    stopped = _engine("stop", "--force", state=tmp_path, PATH=path, DOCKER_HOST=SOCKET)
    assert (started.returncode, stopped.returncode) == (0, 0), started.stderr + stopped.stderr
    assert int((programs / "dockerd.limit").read_text()) > 1024


def test_an_engine_elsewhere_that_does_not_answer_is_named_and_none_is_started(
    tmp_path: Path,
) -> None:
    nowhere = f"unix://{tmp_path}/none.sock"

    result = _engine("ensure", state=tmp_path, DOCKER_HOST=nowhere)

    assert result.returncode == 1
    assert nowhere in result.stderr
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_has_a_hash_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    packages = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]

    assert packages
    hashed = re.compile(r"--hash=sha256:[0-9a-f]{64}")
    assert [package for package in packages if not hashed.search(package)] == []
    assert re.findall(r"\S+://\S+| @ |--(?:extra-)?index-url\S*", text) == []


@pytest.mark.parametrize("folder", NODE_LOCKS)
def test_every_package_of_a_lock_for_node_has_a_hash_and_no_address(folder: str) -> None:
    lock = json.loads((ROOT / folder / "package-lock.json").read_text())
    packages = [package for name, package in lock["packages"].items() if name]

    assert packages
    assert [package for package in packages if not package["integrity"].startswith("sha512-")] == []
    assert [package for package in packages if "resolved" in package] == []


def test_the_development_lock_has_the_same_versions_as_the_runtime_lock() -> None:
    runtime, development = (_pins(lock) for lock in LOCKS)

    assert runtime.items() <= development.items()


def _pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def _pid_file(state: Path) -> Path:
    path = state / "engine" / "dockerd.pid"
    path.parent.mkdir()
    return path


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing until its standard input is closed. Only its arguments matter."""
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()", *arguments],
        stdin=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _engine(*arguments: str, state: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return _run("deploy/engine.sh", *arguments, SPAWN_STATE_DIR=str(state), **more)


def _run(*argv: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
