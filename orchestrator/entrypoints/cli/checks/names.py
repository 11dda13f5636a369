"""Checks that apps can't set cookies for the page. Used by doctor and up."""

from __future__ import annotations

from orchestrator.config import Settings
from orchestrator.domain import host_names
from orchestrator.entrypoints.cli.findings import Finding, ok, warning

NAME = "names"


def check_names(settings: Settings) -> Finding:
    """Whether the page and the apps share a domain for which apps can set cookies."""
    page, apps = settings.addresses.public_host, settings.addresses.apps_domain
    domain = host_names.cookie_domain(page, apps)
    if not domain:
        return ok(NAME, f"apps below {apps} can set no cookies for {page}")
    fix = f"Set SPAWN_APPS_DOMAIN to a domain that shares nothing with {page}"
    if not settings.people.cookie_secure:
        fix += "; or serve the page over TLS, with SPAWN_COOKIE_SECURE=true"
        return warning(
            NAME,
            f"every app can set cookies for {domain}, which {page} gets too: an app could act as"
            " its visitor's identity, or lock its visitors out of the page",
            fix,
        )
    return warning(
        NAME,
        f"every app can set cookies for {domain}, which {page} gets too: an app could lock its"
        " visitors out of the page with cookies that are too many",
        fix,
    )
