"""`spawnctl up` and `down`: start and stop the supervisor, and everything with it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator import small_files
from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.entrypoints import children, supervisor
from orchestrator.entrypoints.child_logs import last_lines
from orchestrator.entrypoints.cli import local
from orchestrator.entrypoints.cli.checks.machine import check_ports
from orchestrator.entrypoints.cli.checks.names import check_names
from orchestrator.entrypoints.cli.checks.variables import check_variables
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.findings import Level
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.liveness import exits

_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 90.0
_POLL_S = 0.05
_PID_MAX = 7  # digits

console = Console(stderr=True)


def register(app: typer.Typer) -> None:
    """Add both commands."""
    app.command()(up)
    app.command()(down)


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when everything runs.")
    ] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Use canned answers instead of Claude; needs no key.")
    ] = False,
) -> None:
    """Start everything on this machine: redis, nginx, api, workers, daemon."""
    settings = local.settings()
    _check_state_folder(settings.places.state_dir)
    if demo and running_pid(settings.places.state_dir) is None:
        settings = _demo_settings(settings)
    _check_socket_path(settings)
    if running_pid(settings.places.state_dir) is not None:
        console.print("SpawnAI is already running here.")
        print_banner(settings)
        return
    _check_ports(settings)
    if detach:
        _start_detached(settings)
        print_banner(settings)
    else:
        _run_in_foreground(settings)


def down(
    keep_apps: Annotated[
        bool, typer.Option("--keep-apps", help="Leave the sandboxes running.")
    ] = False,
) -> None:
    """Stop everything on this machine. Apps stop too, and come back with the next `up`."""
    settings = local.settings()
    pid = running_pid(settings.places.state_dir)
    if pid is None:
        console.print("SpawnAI is not running here.")
        return
    os.kill(pid, signal.SIGUSR1 if keep_apps else signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while running_pid(settings.places.state_dir) is not None:
        if time.monotonic() > deadline:
            console.print(
                f"[red]The supervisor (pid {pid}) did not stop in {_STOP_TIMEOUT_S:.0f} s"
            )
            raise typer.Exit(1)
        time.sleep(_POLL_S)
    console.print("SpawnAI has stopped. Sessions are kept in", str(settings.places.state_dir))


def running_pid(state_dir: Path) -> int | None:
    """Process id of the supervisor that has locked this state folder; None if it is not locked.

    None also while it starts. Raises errors.StorageUnavailable, errors.Conflict (lock_foreign).
    """
    with errors.storage("find out whether SpawnAI runs"):
        try:
            # Only to read: `down` has to work on a disk that takes no writes.
            lock = small_files.open_file(state_dir / supervisor.LOCK)
        except FileNotFoundError:
            return None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = lock.read(_PID_MAX + 1).strip()
            if text.isdigit() and len(text) <= _PID_MAX:
                return int(text)
            if text:
                raise errors.Conflict(
                    f"{state_dir / supervisor.LOCK} is locked, but not by SpawnAI, whose process"
                    " number isn't in it: end the program that `lslocks` names, and try again",
                    code="lock_foreign",
                ) from None
    return None


def print_banner(settings: Settings) -> None:
    """Print where everything is, and what to try. Of a standby, why it is one."""
    reason = _standby_reason(settings)
    if reason:
        print(f"STANDBY    {reason}")
        return
    print(f"Page       {settings.addresses.page_url}/")
    print(f"API docs   {settings.addresses.page_url}/docs")
    print(f"Claude     {_claude_text(settings)}")
    for finding in (check_variables(settings), check_names(settings)):
        if finding.level is not Level.OK:
            print(f"WARNING    {finding.detail}. {finding.fix}")
    for warning in _warnings(settings):
        print(f"WARNING    {warning}")
    print(f'Try        {_spawnctl_path()} run "a kanban board"')


def _standby_reason(settings: Settings) -> str:
    """Why this control plane does nothing; "" if it works."""
    try:
        return small_files.read_text(settings.places.state_dir / children.STANDBY_FILE).strip()
    except FileNotFoundError:
        return ""


def _demo_settings(settings: Settings) -> Settings:
    """The settings with the gateway led to the demo's answers, here and in our child processes."""
    os.environ |= {
        "SPAWN_DEMO": "1",
        "ANTHROPIC_API_KEY": "demo",  # any key will do, but without a key nothing is generated
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{settings.llm.demo_port}",
    }
    return local.settings()


def _claude_text(settings: Settings) -> str:
    """What the running processes have: our own settings may have changed since they started."""
    detail = children.ready_check(settings, "claude").get("detail")
    return str(detail or "unknown: the control plane doesn't answer; run spawnctl doctor")


def _warnings(settings: Settings) -> list[str]:
    try:
        text = small_files.read_text(settings.places.state_dir / "warnings")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line]


def _spawnctl_path() -> str:
    """How to call spawnctl from the current folder."""
    program = Path(sys.argv[0])
    try:
        return str(program.resolve().relative_to(Path.cwd()))
    except ValueError:
        return program.name if program.name == "spawnctl" else "spawnctl"


def _check_state_folder(folder: Path) -> None:
    """Raises Problem (invalid_settings)."""
    if folder.exists():
        reason = "is no folder" if not folder.is_dir() else "can't be written by our user"
        if folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return
        raise Problem(
            Exit.USAGE,
            "invalid_settings",
            f"the state folder {folder} {reason}",
            "Set SPAWN_STATE_DIR to a folder of our own, or run as the user who started SpawnAI.",
        )


def _check_socket_path(settings: Settings) -> None:
    socket_path = str(settings.places.redis_socket)
    if len(socket_path) > 100:  # sun_path has 108 bytes
        console.print(f"[red]{settings.places.state_dir} is too long a path for a socket in it;")
        console.print("set SPAWN_STATE_DIR to a shorter one")
        raise typer.Exit(2)


def _check_ports(settings: Settings) -> None:
    """Exit if we can't listen. Another SpawnAI there would even answer as if it were ours."""
    for finding in check_ports(settings, running=False):
        if finding.level is Level.PROBLEM:
            console.print(f"[red]{finding.name}: {finding.detail}")
            console.print(finding.fix)
            raise typer.Exit(2)


def _run_in_foreground(settings: Settings) -> None:
    """Run the supervisor as a child process, so that we can print the banner when it is ready."""
    process = subprocess.Popen([sys.executable, "-m", supervisor.__name__])
    try:
        _wait_until_ready(settings, process)
        print_banner(settings)
        code = process.wait()
    except KeyboardInterrupt:
        code = process.wait()  # the terminal sent SIGINT to it as well
    raise typer.Exit(code)


def _start_detached(settings: Settings) -> None:
    log_path = settings.places.state_dir / "log" / "supervisor.log"
    with errors.storage("open the supervisor's log"):
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log = log_path.open("ab")
    with log:
        start = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", supervisor.__name__],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_until_ready(settings, process)
    except typer.Exit:
        lines = last_lines(log_path, start, 25)
        console.print(lines, markup=False, highlight=False, soft_wrap=True)
        raise


def _wait_until_ready(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    ready = settings.places.state_dir / supervisor.READY
    while not (ready.exists() and ready.read_bytes() == str(process.pid).encode()):
        status = process.poll()
        if status == exits.UNUSABLE:  # it says itself what is wrong
            raise typer.Exit(Exit.USAGE)
        if status is not None or time.monotonic() > deadline:
            console.print("[red]SpawnAI did not start.")
            raise typer.Exit(Exit.FAILED)
        time.sleep(_POLL_S)
