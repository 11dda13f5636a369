"""The route table on the disk. NginxProxy writes it, and nginx reads it at each request.

The folder `routes` has a link for each route, from its slug to a folder in `targets` that is named
after its endpoint. So a route changes by the rename of one link, and nginx needs no module and no
reload for it. The link `digest` names the table that was published last.

The links are remembered as they were left, as long as the folder's time says that nothing has
changed. That time goes on in ticks of some milliseconds: what a person does in the tick of our own
last change is found once the links are read afresh.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters import durable
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import Slug
from orchestrator.domain.pool.routes import Route, RouteTable, build_table

_DIGEST = "digest"  # the only name that is no slug
_DRAFT = ".draft"


@dataclass(frozen=True, kw_only=True)
class _Links:
    """The links at one moment."""

    changed_ns: int  # when the folder had changed last
    targets: Mapping[Slug, str]  # the names of the targets by slug
    others: Collection[str] = ()  # what else is in the folder
    digest: str  # of the table that they are


class RouteLinks:
    """The links in one folder. Who changes them holds the lock of the proxy's folder."""

    def __init__(self, folder: Path) -> None:
        # As text: pathlib takes longer than the system's calls, and there may be 1,000 of them.
        self._routes = str(folder / "routes")
        self._targets = str(folder / "targets")
        self._known: _Links | None = None

    def set_up(self) -> None:
        """Make the folders. What they have stays: these are the last good routes."""
        for folder in (self._routes, self._targets):
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder).chmod(0o755)  # workers may run as another user; nothing in it is secret
        if not os.path.lexists(f"{self._routes}/{_DIGEST}"):
            self.seal(build_table(()).digest)

    def forget(self) -> None:
        """Read the links afresh when they are needed."""
        self._known = None

    def digest(self) -> str:
        """The digest of the table that the links are."""
        return self._look().digest

    def replace(self, table: RouteTable, confirmed: str | None = None) -> bool:
        """Make the links those of this table. Returns whether a route was changed or withdrawn:
        then a worker of nginx may still be about to use it.

        `confirmed` is the table that publishers know the links to be. If we remember another one,
        somebody has published meanwhile, and the links are read. Raises errors.ProxyRejected for a
        route that is not a slug, an IP address and a port.
        """
        if self._known is not None and self._known.digest != confirmed:
            self.forget()
        before = self._look()
        wanted = {route.slug: endpoint(route.address, route.port) for route in table.routes}
        added = {slug for slug, name in wanted.items() if before.targets.get(slug) != name}
        for route in table.routes:
            if route.slug in added:
                _check(route)
        withdrawn = before.targets.keys() - wanted.keys()
        self._known = None
        for name in before.others:
            with contextlib.suppress(OSError):  # a folder, for example: it is no route
                os.unlink(f"{self._routes}/{name}")
        for slug in withdrawn:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._routes}/{slug}")
        for slug in added:
            self._link(slug, wanted[slug])
        is_used = bool(withdrawn) or not before.targets.keys().isdisjoint(added)
        if is_used:
            # After a power cut, too, nothing is routed there.
            durable.sync_folder(Path(self._routes))
            self._forget_targets({*before.targets.values()} - {*wanted.values()})
        self._known = _Links(changed_ns=self._changed_ns(), targets=wanted, digest=table.digest)
        return is_used

    def seal(self, digest: str) -> None:
        """Note which table the links are, as soon as they are that one."""
        before = self._target_of(_DIGEST)
        if before == digest:
            return
        known, self._known = self._known, None
        is_current = known is not None and known.changed_ns == self._changed_ns()
        self._link(_DIGEST, digest)
        self._forget_targets({before})
        if known is not None and is_current:
            self._known = dataclasses.replace(known, changed_ns=self._changed_ns())

    def _look(self) -> _Links:
        """The links, as they are remembered. Reads them only if the folder has changed."""
        changed_ns = self._changed_ns()
        if self._known is None or self._known.changed_ns != changed_ns:
            self._known = self._read(changed_ns)
        return self._known

    def _read(self, changed_ns: int) -> _Links:
        with os.scandir(self._routes) as entries:
            names = {entry.name: self._target_of(entry.name) for entry in entries}
        names.pop(_DIGEST, None)
        targets = {Slug(slug): name for slug, name in names.items() if _is_of_ours(slug, name)}
        routes = (_route_of(slug, targets[slug]) for slug in sorted(targets))
        return _Links(
            changed_ns=changed_ns,
            targets=targets,
            others=names.keys() - targets.keys(),  # also the draft of a publisher that was killed
            digest=RouteTable(routes=tuple(routes)).digest,
        )

    def _changed_ns(self) -> int:
        return os.stat(self._routes).st_mtime_ns

    def _target_of(self, name: str) -> str:
        try:
            return os.readlink(f"{self._routes}/{name}").rpartition("/")[2]
        except OSError:
            return ""  # there is none, or it is no link

    def _link(self, name: str, target: str) -> None:
        # Without the folder there would be no route: nginx follows the link to its end.
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{self._targets}/{target}", 0o755)
        draft = f"{self._routes}/{_DRAFT}"
        try:
            os.symlink(f"../targets/{target}", draft)
        except FileExistsError:  # of a publisher that was killed
            os.unlink(draft)
            os.symlink(f"../targets/{target}", draft)
        os.rename(draft, f"{self._routes}/{name}")

    def _forget_targets(self, names: Iterable[str]) -> None:
        for name in filter(None, names):
            with contextlib.suppress(OSError):
                os.rmdir(f"{self._targets}/{name}")


def endpoint(address: str, port: int) -> str:
    """Return address:port, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _check(route: Route) -> None:
    """Raises errors.ProxyRejected: anything but a slug, an address and a port could lead nginx
    elsewhere."""
    if not ids.SLUG_PATTERN.fullmatch(route.slug) or not 0 < route.port < 65536:
        raise errors.ProxyRejected(f"not a route: {route}")
    try:
        ipaddress.ip_address(route.address)
    except ValueError as error:
        raise errors.ProxyRejected(
            f"{route.slug}: {route.address!r} is no IP address; "
            "set the host's publish address to one"
        ) from error


def _is_of_ours(slug: str, name: str) -> bool:
    """Whether these are the names of a link of ours and of its target."""
    address, _, port = name.rpartition(":")
    is_endpoint = bool(address) and port.isascii() and port.isdigit()
    return is_endpoint and ids.SLUG_PATTERN.fullmatch(slug) is not None


def _route_of(slug: Slug, name: str) -> Route:
    address, _, port = name.rpartition(":")
    return Route(slug=slug, address=address.strip("[]"), port=int(port))
