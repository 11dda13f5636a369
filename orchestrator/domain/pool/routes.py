"""Routes: what the proxy should know, as one value that is compared by its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.domain.ids import Slug


@dataclass(frozen=True, kw_only=True, order=True)
class Route:
    """One app's public name and where its sandbox listens."""

    slug: Slug
    address: str  # host's publish address
    port: int


@dataclass(frozen=True, kw_only=True)
class RouteTable:
    """All routes at one instant, sorted by slug."""

    routes: tuple[Route, ...]

    @property
    def digest(self) -> str:
        """32 hex characters that stand for exactly these routes."""
        text = "\n".join(f"{r.slug} {r.address}:{r.port}" for r in self.routes)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def table(routes: Iterable[Route]) -> RouteTable:
    """The table of these routes. Raises ValueError when one slug or one endpoint stands twice:
    then the store is wrong, and publishing it would show one user's app to another."""
    ordered = tuple(sorted(routes))
    slugs = {r.slug for r in ordered}
    endpoints = {(r.address, r.port) for r in ordered}
    if len(slugs) != len(ordered) or len(endpoints) != len(ordered):
        raise ValueError("a slug or an endpoint occurs twice among the routes")
    return RouteTable(routes=ordered)
