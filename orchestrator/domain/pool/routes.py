"""Routes: which sandbox each app's public name leads to. Tables are compared by their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.domain.ids import Slug


@dataclass(frozen=True, kw_only=True, order=True)
class Route:
    """One app's public name and the endpoint of its sandbox."""

    slug: Slug
    address: str  # the publish address of the sandbox's host
    port: int


@dataclass(frozen=True, kw_only=True)
class RouteTable:
    """All routes at one moment, sorted by slug."""

    routes: tuple[Route, ...]

    @property
    def digest(self) -> str:
        """32 hexadecimal characters that identify exactly these routes."""
        text = "\n".join(f"{route.slug} {route.address}:{route.port}" for route in self.routes)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def build_table(routes: Iterable[Route]) -> RouteTable:
    """The table of these routes.

    Raises ValueError if a slug or an endpoint occurs twice. Then the store is wrong, and publishing
    the table could show one user's app to another.
    """
    ordered = tuple(sorted(routes))
    slugs = {route.slug for route in ordered}
    endpoints = {(route.address, route.port) for route in ordered}
    if len(slugs) != len(ordered) or len(endpoints) != len(ordered):
        raise ValueError("a slug or an endpoint occurs twice among the routes")
    return RouteTable(routes=ordered)
