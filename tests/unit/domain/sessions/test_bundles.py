"""Which limit leaves no room for another version."""

from __future__ import annotations

import pytest

from orchestrator.domain.sessions.bundles import StorageLimits, Stored, find_shortage

LIMITS = StorageLimits(versions=3, session_bytes=10, user_bytes=20, total_bytes=30)


def scope_of(stored: Stored, size_bytes: int = 1) -> str | None:
    shortage = find_shortage(LIMITS, stored, size_bytes)
    return shortage and shortage.scope


def test_an_app_has_as_many_versions_as_its_limit_says() -> None:
    assert scope_of(Stored(versions=2)) is None
    shortage = find_shortage(LIMITS, Stored(versions=3), 0)
    assert shortage is not None
    assert (shortage.scope, shortage.limit) == ("session", 3)


@pytest.mark.parametrize(
    ("field", "scope"),
    [("session_bytes", "session"), ("user_bytes", "user"), ("total_bytes", "installation")],
)
def test_bytes_may_reach_their_limit_and_not_exceed_it(field: str, scope: str) -> None:
    limit = getattr(LIMITS, field)
    assert scope_of(Stored(**{field: limit - 1})) is None
    shortage = find_shortage(LIMITS, Stored(**{field: limit - 1}), 2)
    assert shortage is not None
    assert (shortage.scope, shortage.limit) == (scope, limit)
