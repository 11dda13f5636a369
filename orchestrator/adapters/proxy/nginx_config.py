"""What nginx reads: settings, rendering, and the files in its folder. Used by adapters.nginx,
and by supervisors, which call `write_base` and then run `nginx -c <folder>/nginx.conf`.

Below the folder: `nginx.conf`, `routes.conf` (the table in force), `generations/<digest>` (an empty
file for each table that a worker may still route by), `pages/`, `temp/`, `nginx.pid`, `error.log`.
"""

from __future__ import annotations

import fcntl
import functools
import ipaddress
import os
import re
import resource
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO

import jinja2

from orchestrator.domain import errors, ids
from orchestrator.domain.pool.routes import Route, RouteTable, table

_FORBIDDEN = re.compile(r"""["'\\$;{}\s]""")  # would end a quoted string or start a variable
_ROUTE_LINE = re.compile(r"^\s+([a-z2-7]{16}) (\[[0-9a-f:]+\]|[0-9.]+):(\d+);$", re.MULTILINE)
_TEMP_KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True, kw_only=True)
class NginxSettings:
    """Where nginx listens, what stands behind it and where it keeps its files."""

    folder: Path  # state; absolute, and workers must be able to enter it
    templates: Path  # proxy/nginx
    pages: Path  # proxy/pages
    listen_address: str = "127.0.0.1"
    listen_port: int = 8080
    control_port: int = 8082  # always on 127.0.0.1; a UNIX socket would go stale with kill -9
    apps_domain: str = "apps.localhost"
    api_address: str = "127.0.0.1:8081"  # or unix:/path
    binary: str = "/usr/sbin/nginx"
    worker_user: str | None = None  # only as root; None is nginx's own choice (nobody)
    trusted_proxies: tuple[str, ...] = ()  # whose X-Forwarded-* are believed: addresses or networks
    worker_connections: int = 8192  # a proxied request takes two
    worker_shutdown_timeout_s: int = 75  # as long as the longest long poll
    reload_deadline_s: float = 5.0

    def __post_init__(self) -> None:
        if self.control_port == self.listen_port:
            raise errors.InvalidInput(
                "control_port and listen_port must differ", field="control_port"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            for text in map(str, value if isinstance(value, tuple) else (value,)):
                if _FORBIDDEN.search(text):
                    raise errors.InvalidInput(
                        f"{field.name} can't stand in nginx's configuration: {text!r}. "
                        "Use a value without spaces, quotes, $, ;, braces and backslashes.",
                        field=field.name,
                    )

    @property
    def listen(self) -> str:
        """address:port of the public listener."""
        return endpoint(self.listen_address, self.listen_port)

    @property
    def control(self) -> str:
        """address:port of the listener that only this machine reaches."""
        return endpoint("127.0.0.1", self.control_port)


def write_base(settings: NginxSettings) -> None:
    """Bring the folder into a state in which nginx can start: an intact routes.conf is kept as the
    last good one, everything else is rendered anew. Safe while nginx runs (it reads nothing until
    a reload). Raises errors.ProxyUnavailable when there is no nginx."""
    kinds = temp_kinds(settings.binary)
    for name in ("", "generations", "pages", "temp"):
        folder = settings.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # workers may run as another user; nothing here is secret
    for page in settings.pages.glob("*.html"):
        write_atomically(settings.folder / "pages" / page.name, page.read_text("utf-8"))
    base = render_base(settings, open_files=_open_files(settings), temp_kinds=kinds)
    write_atomically(settings.folder / "nginx.conf", base)
    with open_lock(settings.folder) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a publisher holds it for its deadline at most
        routes = last_good(settings.folder / "routes.conf") or table(())
        admit(settings.folder, routes.digest)
        write_atomically(settings.folder / "routes.conf", render_routes(settings, routes))


def render_base(
    settings: NginxSettings,
    *,
    open_files: int,
    temp_kinds: tuple[str, ...],
    folder: Path | None = None,
    listen: str | None = None,
    control: str | None = None,
) -> str:
    """The text of nginx.conf; the last three are for candidates, which must not touch what runs."""
    template = _environment(settings.templates).get_template("nginx.conf.j2")
    return template.render(
        api_address=settings.api_address,
        apps_domain_pattern=re.escape(settings.apps_domain),
        control=control or settings.control,
        control_port=settings.control_port,
        folder=folder or settings.folder,
        listen=listen or settings.listen,
        open_files=open_files,
        temp_kinds=temp_kinds,
        trusted_proxies=settings.trusted_proxies,
        worker_connections=settings.worker_connections,
        worker_shutdown_timeout_s=settings.worker_shutdown_timeout_s,
        worker_user=settings.worker_user if os.geteuid() == 0 else None,
    )


def render_routes(settings: NginxSettings, routes: RouteTable) -> str:
    """The text of routes.conf, one line per route, the digest on the first line. Raises
    errors.ProxyRejected for a route that isn't a slug and an IP address with a port: anything else
    could say more to nginx than where an app is."""
    for route in routes.routes:
        if not ids.SLUG_PATTERN.fullmatch(route.slug) or not 0 < route.port < 65536:
            raise errors.ProxyRejected(f"not a route: {route}")
        try:
            ipaddress.ip_address(route.address)
        except ValueError as error:
            raise errors.ProxyRejected(
                f"{route.slug}: {route.address!r} is no IP address; "
                "set the host's publish address to one"
            ) from error
    lines = [{"slug": r.slug, "endpoint": endpoint(r.address, r.port)} for r in routes.routes]
    template = _environment(settings.templates).get_template("routes.conf.j2")
    return template.render(digest=routes.digest, routes=lines)


def last_good(path: Path) -> RouteTable | None:
    """The table in a routes.conf; None when there is none or it doesn't match its digest."""
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    found = RouteTable(
        routes=tuple(
            Route(slug=ids.Slug(slug), address=address.strip("[]"), port=int(port))
            for slug, address, port in _ROUTE_LINE.findall(text)
        )
    )
    return found if text.startswith(f"# routes {found.digest}\n") else None


@functools.cache
def temp_kinds(binary: str) -> tuple[str, ...]:
    """nginx makes a temp folder for each of these, by default where only root may; but slim builds
    lack some modules and refuse their directives."""
    try:
        version = subprocess.run(
            [binary, "-V"], check=False, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise errors.ProxyUnavailable(
            f"can't run {binary}: install nginx, or name its binary in the settings"
        ) from error
    missing = re.findall(r"--without-http_(\w+)_module", version.stderr)
    return tuple(kind for kind in _TEMP_KINDS if kind not in missing)


def open_lock(folder: Path) -> IO[str]:
    """The file whose flock whoever changes routes.conf and generations holds."""
    return (folder / "publish.lock").open("w")


def generations(folder: Path) -> set[str]:
    """Digests of the tables by which a worker may still route."""
    return {entry.name for entry in (folder / "generations").iterdir()}


def admit(folder: Path, digest: str) -> None:
    """Let workers that loaded this table route by it."""
    (folder / "generations" / digest).touch(mode=0o644)
    _sync_folder(folder / "generations")


def withdraw(folder: Path, digests: set[str]) -> None:
    """From now on no worker that loaded one of these tables starts to route by it."""
    for digest in digests:
        (folder / "generations" / digest).unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that readers, and a machine that loses power, see the old or the new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    draft.replace(path)
    _sync_folder(path.parent)


def endpoint(address: str, port: int) -> str:
    """address:port, with brackets round an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@functools.cache  # keeps compiled templates; a changed file is read again
def _environment(templates: Path) -> jinja2.Environment:
    # No autoescape: this is no HTML. What gets in is checked above.
    return jinja2.Environment(  # noqa: S701
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )


def _open_files(settings: NginxSettings) -> int:
    wanted = 2 * settings.worker_connections
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = os.geteuid() == 0 or hard == resource.RLIM_INFINITY
    return wanted if unlimited else min(wanted, hard)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
