"""Routes: which sandbox each app's public name leads to. Tables are compared by their digest."""

from __future__ import annotations

import functools
import hashlib
import operator
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from orchestrator.domain.ids import SandboxId, Slug


@dataclass(frozen=True, kw_only=True)
class Route:
    """One app's public name and the endpoint of its sandbox."""

    slug: Slug
    address: str  # the publish address of the sandbox's host
    port: int


@dataclass(frozen=True, kw_only=True)
class StoredRoutes:
    """What the store has of routes at one moment."""

    routes: Mapping[SandboxId, Route]  # of the next table
    unconfirmed: Collection[SandboxId]  # of these, those that count as not published yet
    withdrawn: Collection[SandboxId]  # those that have no route any more, and count as published


@dataclass(frozen=True, kw_only=True)
class RouteTable:
    """All routes at one moment, sorted by slug. No two share a slug or an endpoint."""

    routes: tuple[Route, ...]
    ambiguous: tuple[Route, ...] = ()  # left out: each shares its slug or its endpoint with another

    @functools.cached_property
    def digest(self) -> str:
        """32 hexadecimal characters that identify exactly these routes."""
        text = "\n".join(f"{route.slug} {route.address}:{route.port}" for route in self.routes)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


_IN_ORDER = operator.attrgetter("slug", "address", "port")


def build_table(routes: Iterable[Route]) -> RouteTable:
    """The table of these routes, without those that share a slug or an endpoint.

    Publishing such a route could show one user's app to another. The store's constraints rule it
    out; should they fail, it takes only the apps concerned off the air.
    """
    ordered = sorted(routes, key=_IN_ORDER)
    slugs = Counter(route.slug for route in ordered)
    endpoints = Counter((route.address, route.port) for route in ordered)
    if len(slugs) == len(endpoints) == len(ordered):
        return RouteTable(routes=tuple(ordered))

    def is_clear(route: Route) -> bool:
        return slugs[route.slug] == 1 and endpoints[route.address, route.port] == 1

    return RouteTable(
        routes=tuple(route for route in ordered if is_clear(route)),
        ambiguous=tuple(route for route in ordered if not is_clear(route)),
    )
