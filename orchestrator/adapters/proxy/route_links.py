"""The route table on the disk. NginxProxy writes it, and nginx reads it at each request.

The folder `routes` has a link for each route, from its slug to a folder in `targets` that is named
after its endpoint. So a route changes by the rename of one link, and nginx needs no module and no
reload for it. The link `digest` names the table that was published last.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from orchestrator.adapters import durable
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import Slug
from orchestrator.domain.pool.routes import Route, RouteTable, build_table

_DIGEST = "digest"  # the only name that is no slug
_DRAFT = ".draft"


class RouteLinks:
    """The links in one folder. Who changes them holds the lock of the proxy's folder."""

    def __init__(self, folder: Path) -> None:
        self._routes = folder / "routes"
        self._targets = folder / "targets"
        self._last_read: tuple[int, str] | None = None  # when the folder had changed; the digest

    def set_up(self) -> None:
        """Make the folders. What they have stays: these are the last good routes."""
        for folder in (self._routes, self._targets):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)  # workers may run as another user; nothing in it is secret
        if not os.path.lexists(self._routes / _DIGEST):
            self.seal(build_table(()).digest)

    def digest(self) -> str:
        """The digest of the table that the links are. Reads them only if one has changed."""
        changed_ns = self._routes.stat().st_mtime_ns
        if self._last_read is None or self._last_read[0] != changed_ns:
            routes = (_route_of(slug, name) for slug, name in self._read().items())
            self._last_read = (changed_ns, RouteTable(routes=tuple(sorted(routes))).digest)
        return self._last_read[1]

    def replace(self, table: RouteTable) -> bool:
        """Make the links those of this table. Returns whether a route was changed or withdrawn:
        then a worker of nginx may still be about to use it.

        Raises errors.ProxyRejected for a route that is not a slug, an IP address and a port.
        """
        wanted = {route.slug: _name_of(route) for route in table.routes}
        before = self._read()
        self._drop_others(before)
        withdrawn = before.keys() - wanted.keys()
        for slug in withdrawn:
            (self._routes / slug).unlink()
        self._last_read = None
        added = {slug: name for slug, name in wanted.items() if before.get(slug) != name}
        for slug, name in added.items():
            self._link(slug, name)
        if not withdrawn and before.keys().isdisjoint(added):
            return False
        durable.sync_folder(self._routes)  # after a power cut, too, nothing is routed there
        self._forget_targets({*before.values()} - {*wanted.values()})
        return True

    def seal(self, digest: str) -> None:
        """Note which table the links are, as soon as they are that one."""
        before = self._target_of(_DIGEST)
        if before != digest:
            self._link(_DIGEST, digest)
            self._forget_targets({before})

    def _read(self) -> Mapping[Slug, str]:
        """The names of the targets by slug."""
        with os.scandir(self._routes) as entries:
            links = {Slug(entry.name): self._target_of(entry.name) for entry in entries}
        return {slug: name for slug, name in links.items() if _is_link_of_ours(slug, name)}

    def _drop_others(self, slugs: Collection[Slug]) -> None:
        """Remove what is no link of ours, and the draft of a publisher that was killed."""
        for entry in self._routes.iterdir():
            if entry.name != _DIGEST and entry.name not in slugs:
                with contextlib.suppress(OSError):
                    entry.unlink()

    def _target_of(self, name: str) -> str:
        try:
            return (self._routes / name).readlink().name
        except OSError:
            return ""  # there is none, or it is no link

    def _link(self, name: str, target: str) -> None:
        # Without the folder there would be no route: nginx follows the link to its end.
        (self._targets / target).mkdir(mode=0o755, exist_ok=True)
        draft = self._routes / _DRAFT
        draft.unlink(missing_ok=True)
        draft.symlink_to(f"../targets/{target}")
        draft.replace(self._routes / name)
        self._last_read = None

    def _forget_targets(self, names: Collection[str]) -> None:
        for name in filter(None, names):
            with contextlib.suppress(OSError):
                (self._targets / name).rmdir()


def endpoint(address: str, port: int) -> str:
    """Return address:port, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _name_of(route: Route) -> str:
    """The name of the route's target. Raises errors.ProxyRejected: anything but a slug, an address
    and a port could lead nginx elsewhere."""
    if not ids.SLUG_PATTERN.fullmatch(route.slug) or not 0 < route.port < 65536:
        raise errors.ProxyRejected(f"not a route: {route}")
    try:
        ipaddress.ip_address(route.address)
    except ValueError as error:
        raise errors.ProxyRejected(
            f"{route.slug}: {route.address!r} is no IP address; "
            "set the host's publish address to one"
        ) from error
    return endpoint(route.address, route.port)


def _is_link_of_ours(slug: str, name: str) -> bool:
    address, _, port = name.rpartition(":")
    is_endpoint = bool(address) and port.isascii() and port.isdigit()
    return is_endpoint and ids.SLUG_PATTERN.fullmatch(slug) is not None


def _route_of(slug: Slug, name: str) -> Route:
    address, _, port = name.rpartition(":")
    return Route(slug=slug, address=address.strip("[]"), port=int(port))
