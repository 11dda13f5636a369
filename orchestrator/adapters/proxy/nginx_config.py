"""nginx's configuration: its settings, how it is rendered, and the files in its folder.

NginxProxy uses this. Supervisors call `write_base` and then run `nginx -c <folder>/nginx.conf`.

The folder contains `nginx.conf`, `routes/` and `targets/` (the table in force: see route_links.py),
`confirmed` (the digest of the table in force, once no worker routes by an earlier one), `term` (the
number of the leader that published last), `pages/`, `static/`, `temp/`, `nginx.pid` and
`error.log`.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import resource
import subprocess
from dataclasses import dataclass, field, fields
from pathlib import Path

import jinja2

from orchestrator.adapters import durable
from orchestrator.adapters.proxy import page_files
from orchestrator.adapters.proxy.client_limits import ClientLimits
from orchestrator.adapters.proxy.refusals import PAGE_BODY_MAX_BYTES, PAGE_METHODS, REFUSALS
from orchestrator.adapters.proxy.route_links import RouteLinks, endpoint
from orchestrator.contract import uploads
from orchestrator.contract.heads import HEAD_MAX_BYTES, HEAD_ROOM_BYTES
from orchestrator.contract.visits import PROBE_HEADER
from orchestrator.domain import errors
from orchestrator.domain.logged_requests import WRITES, LoggedRequests

_FORBIDDEN = re.compile(r"""["'\\$;{}\s]""")  # ends a quoted string or starts a variable
_TEMP_KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

# To nginx the variable of a header is also that of each name with underscores for some dashes.
_MISSPELLED_HEADERS = tuple(
    spelled
    for name in ("X-Forwarded-Proto", PROBE_HEADER)
    for spelled in map("".join, itertools.product(*(("-_" if c == "-" else c) for c in name)))
    if spelled != name
)


@dataclass(frozen=True, kw_only=True)
class NginxSettings:
    """Where nginx listens, what it forwards to, and where it keeps its files."""

    folder: Path  # its state; an absolute path that workers can enter
    templates: Path  # proxy/nginx
    pages: Path  # proxy/pages
    page_files: Path  # the folder with the files of the page, of which nginx gets copies
    apps_log: Path  # where requests for apps are logged, if any are
    logged_requests: LoggedRequests = LoggedRequests.OFF
    listen_address: str = "127.0.0.1"
    listen_port: int = 8080
    control_port: int = 8082  # always on 127.0.0.1; kill -9 would leave a stale UNIX socket
    page_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")  # other names are refused
    apps_domain: str = "apps.localhost"
    api_addresses: tuple[str, ...] = ("127.0.0.1:8081",)  # of the api processes; or unix:/path
    binary: str = "/usr/sbin/nginx"
    worker_user: str | None = None  # applies only as root; None is nginx's default (nobody)
    trusted_proxies: tuple[str, ...] = ()  # trust X-Forwarded-* from these addresses or networks
    upload_max_bytes: int = uploads.UPLOAD_MAX_BYTES  # of a request to an app
    limits: ClientLimits = field(default_factory=ClientLimits)
    worker_connections: int = 8192  # a proxied request takes two connections
    worker_shutdown_timeout_s: int = 75  # as long as the longest long poll
    publish_deadline_s: float = 5.0

    def __post_init__(self) -> None:
        if self.control_port == self.listen_port:
            raise errors.InvalidInput(
                "control_port and listen_port must differ", field="control_port"
            )
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, ClientLimits):
                continue
            for text in map(str, value if isinstance(value, tuple) else (value,)):
                if _FORBIDDEN.search(text):
                    raise errors.InvalidInput(
                        f"{each.name} does not fit into nginx's configuration: {text!r}. "
                        "Use a value without spaces, quotes, $, ;, braces and backslashes.",
                        field=each.name,
                    )

    @property
    def listen(self) -> str:
        """address:port of the public listener."""
        return endpoint(self.listen_address, self.listen_port)

    @property
    def control(self) -> str:
        """address:port of the control listener, which only this machine can reach."""
        return endpoint("127.0.0.1", self.control_port)


def write_base(settings: NginxSettings) -> None:
    """Write the files that nginx needs to start.

    The routes stay as they are, and everything else is rendered anew. Safe while nginx runs: it
    reads none of this again. Raises errors.ProxyUnavailable when nginx is not installed.
    """
    kinds = temp_kinds(settings.binary)
    for name in ("", "pages", "temp"):
        folder = settings.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # workers may run as another user; nothing in it is secret
    for name, text in render_pages(settings).items():
        write_atomically(settings.folder / "pages" / name, text)
    page_files.copy(settings.page_files, settings.folder / "static")
    base = render_base(settings, open_files=_open_files(settings), temp_kinds=kinds)
    write_atomically(settings.folder / "nginx.conf", base)
    RouteLinks(settings.folder).set_up()


def render_base(settings: NginxSettings, *, open_files: int, temp_kinds: tuple[str, ...]) -> str:
    """Return the text of nginx.conf."""
    template = _environment(settings.templates).get_template("nginx.conf.j2")
    return template.render(
        api_addresses=settings.api_addresses,
        apps_log=settings.apps_log,
        apps_domain_pattern=re.escape(settings.apps_domain),
        control=settings.control,
        control_port=settings.control_port,
        folder=settings.folder,
        head_max_bytes=HEAD_MAX_BYTES,
        head_room_bytes=HEAD_ROOM_BYTES,
        limits=settings.limits,
        listen=settings.listen,
        logged_requests=settings.logged_requests,
        misspelled_headers=_MISSPELLED_HEADERS,
        open_files=open_files,
        page_body_max_bytes=PAGE_BODY_MAX_BYTES,
        page_headers=page_files.SECURITY_HEADERS,
        page_hosts=settings.page_hosts,
        page_methods=PAGE_METHODS,
        probe_header=PROBE_HEADER,
        temp_kinds=temp_kinds,
        trusted_proxies=settings.trusted_proxies,
        upload_max_bytes=settings.upload_max_bytes,
        worker_connections=settings.worker_connections,
        worker_shutdown_timeout_s=settings.worker_shutdown_timeout_s,
        writes=sorted(WRITES),
        worker_user=settings.worker_user if os.geteuid() == 0 else None,
    )


def render_pages(settings: NginxSettings) -> dict[str, str]:
    """What refusals answer, by the names of its files: `502.html` and `502.json`, for example."""
    pages = _environment(settings.pages)
    texts = {f"{refusal.name}.json": refusal.as_json() for refusal in REFUSALS}
    texts["413.json"] = uploads.refusal(settings.upload_max_bytes) + "\n"
    values = {"upload_max": uploads.shown(settings.upload_max_bytes)}
    for path in settings.pages.glob("*[0-9].html.j2"):
        texts[path.stem] = pages.get_template(path.name).render(values)
    return texts


@functools.cache
def temp_kinds(binary: str) -> tuple[str, ...]:
    """Return the kinds of temporary folders that this nginx needs. Raises errors.ProxyUnavailable.

    By default nginx creates them where only root may write, so we configure the place of each one.
    Slim builds lack some of the modules and refuse their directives.
    """
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


def open_lock(folder: Path) -> int:
    """Open the lock file, and return its descriptor. Hold its flock to change the routes."""
    return os.open(folder / "publish.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


def read_term(folder: Path) -> int:
    """The number of the latest leader that has published here; 0 if none has."""
    try:
        return int((folder / "term").read_text("ascii"))
    except (FileNotFoundError, ValueError):
        return 0


def write_term(folder: Path, number: int) -> None:
    """Keep out all earlier leaders. Hold the lock."""
    write_atomically(folder / "term", f"{number}\n")


def read_confirmed(folder: Path) -> str | None:
    """The digest of the table of which it is known that no worker routes by an earlier one."""
    try:
        return (folder / "confirmed").read_text("ascii")
    except FileNotFoundError:
        return None


def confirm(folder: Path, digest: str) -> None:
    """Note that no worker routes by an earlier one. Not synced: a power cut ends all workers."""
    (folder / "confirmed").write_text(digest, "ascii")


def withdraw_confirmation(folder: Path) -> None:
    """Before the table changes."""
    (folder / "confirmed").unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file. Readers, and a machine after a power cut, find either the old or the new."""
    durable.replace_file(path, text.encode(), mode=0o644)


@functools.cache  # keeps compiled templates; jinja2 reads a changed file again
def _environment(templates: Path) -> jinja2.Environment:
    # No autoescape: all values of nginx's files are checked above, and the pages have none.
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
