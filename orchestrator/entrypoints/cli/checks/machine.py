"""Checks this machine: memory, programs, ports, the state folder. Changes nothing.

Used by `spawnctl doctor`.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from orchestrator.config import Settings
from orchestrator.domain.pool import host_fields
from orchestrator.entrypoints import children, descriptors
from orchestrator.entrypoints.cli import local
from orchestrator.entrypoints.cli.findings import Finding, ok, problem, warning

_GIB = 1024**3
_MIB = 1024**2
_PYTHON_MIN = (3, 11)
_MEMORY_LOW_BYTES = 512 * _MIB  # the control plane takes about 350 MB, one small app 100 MB
_DISK_MIN_BYTES = 1 * _GIB  # the runtime image alone is 300 MB
_DISK_LOW_BYTES = 4 * _GIB
_INODES_MIN = 20_000  # a Python app with its libraries unpacks to some thousands
_SOCKET_PATH_MAX = 100  # sun_path has 108 bytes
_SECRET_FILES = ("secret", local.OPERATOR_KEY, "spawn.env")


def check_system() -> Iterator[Finding]:
    """Python, memory and descriptors, which depend on no setting."""
    yield _python(sys.version_info[:3])
    yield _memory(_available_bytes())
    yield _descriptors(descriptors.reachable())


def check_programs(settings: Settings) -> Iterator[Finding]:
    """nginx, and redis-server unless the settings name another Redis."""
    packages = {"nginx": "nginx-light"}
    if not settings.places.redis_url:
        packages["redis-server"] = "redis-server"
    for program, package in packages.items():
        try:
            yield ok(program, children.find_program(program))
        except FileNotFoundError:
            yield problem(program, "is not installed", f"sudo apt-get install {package}")


def check_ports(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Each port is free, or SpawnAI's own. `running`: whether our control plane answers."""
    ports = {
        "http_port": (settings.addresses.http_address, settings.addresses.http_port),
        "control_port": ("127.0.0.1", settings.addresses.control_port),
    }
    for name, (address, number) in ports.items():
        error_number = _try_to_listen(address, number)
        if error_number is None:
            yield ok(f"port {number}", "free")
        elif running and error_number == errno.EADDRINUSE:
            yield ok(f"port {number}", "in use by SpawnAI")
        else:
            yield problem(f"port {number}", *_explain_port(name, address, number, error_number))


def check_state_folder(settings: Settings) -> Iterator[Finding]:
    """This user may write to it, others can't read it, and there is room on its disk."""
    folder = settings.places.state_dir
    yield _folder(folder)
    if len(os.fsencode(settings.places.redis_socket)) > _SOCKET_PATH_MAX:
        yield problem(
            "state folder",
            f"{folder} is too long a path for a socket in it",
            "Set SPAWN_STATE_DIR to a shorter path",
        )
    for name in _SECRET_FILES:
        path = folder / name
        if _is_open_to_others(path):
            yield problem(name, "others on this machine can read it", f"chmod 600 {path}")
    yield from check_disk("state folder's disk", local.existing_parent(folder))


def check_disk(name: str, folder: Path) -> Iterator[Finding]:
    """Free bytes and inodes of the file system that a folder is on."""
    stats = os.statvfs(folder)
    free = stats.f_bavail * stats.f_frsize
    detail = f"{_gib(free)} free at {folder}"
    fix = f"Free some space: du -xh --max-depth=1 {folder} | sort -h; docker image prune"
    if free < _DISK_MIN_BYTES:
        yield problem(name, detail, fix)
    elif free < _DISK_LOW_BYTES:
        yield warning(name, detail, fix)
    else:
        yield ok(name, detail)
    # Some file systems (btrfs, some overlays) have no fixed number of inodes and report 0 of 0.
    if stats.f_files and stats.f_favail < _INODES_MIN:
        yield problem(
            f"{name}: inodes",
            f"{stats.f_favail} of {stats.f_files} free at {folder}",
            f"Remove what has many small files: du --inodes -x --max-depth=1 {folder} | sort -n",
        )


def _python(version: tuple[int, ...]) -> Finding:
    text = ".".join(map(str, version))
    if version < _PYTHON_MIN:
        return problem("Python", text, "sudo apt-get install python3.11 python3.11-venv")
    return ok("Python", text)


def _memory(available_bytes: int | None) -> Finding:
    if available_bytes is None:
        return warning("memory", "can't be read", "See /proc/meminfo")
    slots = host_fields.default_slots(memory_bytes=_total_bytes(), cpus=os.cpu_count() or 1)
    detail = (
        f"{_gib(available_bytes)} available; room for {slots} sandboxes unless SPAWN_SLOTS is set"
    )
    if available_bytes < _MEMORY_LOW_BYTES:
        return problem(
            "memory",
            f"only {available_bytes // _MIB} MiB available",
            "End other programs (ps aux --sort=-rss | head), or use a bigger machine",
        )
    return ok("memory", detail)


def _descriptors(limit: int) -> Finding:
    name = "open files"
    if limit < descriptors.ENOUGH:
        return warning(
            name,
            f"a process may have {limit}; each sandbox takes two, each visitor who waits one",
            f"ulimit -Hn {descriptors.WANTED} before `spawnctl up`; in a systemd unit:"
            f" LimitNOFILE={descriptors.WANTED}",
        )
    return ok(name, f"a process may have {limit}")


def _available_bytes() -> int | None:
    """Memory that programs can still get without swapping. Ignores the limit of our own cgroup if
    we run in a container: Docker's sandboxes run outside of it."""
    return _meminfo("MemAvailable")


def _total_bytes() -> int:
    return _meminfo("MemTotal") or 0


def _meminfo(name: str) -> int | None:
    try:
        text = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        return None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return None


def _try_to_listen(address: str, number: int) -> int | None:
    """Listen on the port for a moment. Returns the errno if that fails, else None."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        # nginx and uvicorn set it too: they can listen while old connections linger.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, number))
            probe.listen(1)
        except OSError as error:
            return error.errno or errno.EIO
    return None


def _explain_port(setting: str, address: str, number: int, error_number: int) -> tuple[str, str]:
    """The detail and the fix for a port that we can't listen on."""
    variable = f"SPAWN_{setting.upper()}"
    if error_number == errno.EADDRINUSE:
        return (
            "another program listens there",
            f"Find it: sudo ss -ltnp 'sport = :{number}'. Or set {variable} to another port",
        )
    if error_number in {errno.EACCES, errno.EPERM}:
        return "this user may not listen there", f"Set {variable} to a port from 1024 on"
    if error_number == errno.EADDRNOTAVAIL:
        return f"this machine has no address {address}", "Set SPAWN_HTTP_ADDRESS to one of its own"
    return f"listening fails: {os.strerror(error_number)}", f"Set {variable} to another port"


def _folder(folder: Path) -> Finding:
    name = "state folder"
    if not folder.exists():
        parent = local.existing_parent(folder)
        if os.access(parent, os.W_OK | os.X_OK):
            return ok(name, f"{folder} will be made by the first `spawnctl up`")
        return problem(
            name,
            f"{folder} isn't there, and this user may not make it",
            f"sudo install -d -o {_user()} {folder}; or set SPAWN_STATE_DIR",
        )
    closed = [parent for parent in folder.parents if not parent.stat().st_mode & stat.S_IXOTH]
    if os.geteuid() == 0 and closed:
        return problem(
            name,
            f"{closed[-1]} is closed to others, and so to the proxy's workers",
            "Set SPAWN_STATE_DIR to a folder outside of it, such as /var/lib/spawnai",
        )
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return problem(
            name, f"this user may not write to {folder}", f"sudo chown -R {_user()} {folder}"
        )
    if folder.stat().st_mode & (stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH):
        return problem(name, f"{folder} is open to other users", f"chmod 711 {folder}")
    return ok(name, str(folder))


def _is_open_to_others(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False


def _user() -> str:
    return os.environ.get("USER") or str(os.getuid())


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB"
