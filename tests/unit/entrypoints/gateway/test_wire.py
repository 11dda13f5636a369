"""Headers of providers, as clients get them."""

from __future__ import annotations

import pytest

from orchestrator.entrypoints.api.gateway import wire

NOW = "Sun, 29 Nov 2026 16:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "Sun, 29 Nov 2026 16:01:30 GMT", "Date": NOW}, "90"),
        ({"retry-after": "Sun, 29 Nov 2026 15:00:00 GMT", "date": NOW}, "0"),
        ({"retry-after": "7", "date": NOW}, "7"),
        ({"retry-after": "0.5", "date": NOW}, "0.5"),
        ({"retry-after": "soon", "date": NOW}, "soon"),
        ({"retry-after": "Sun, 29 Nov 2026 16:01:30 GMT"}, "Sun, 29 Nov 2026 16:01:30 GMT"),
        ({"retry-after": "Sun, 29 Nov 2026 16:01:30 -0000", "date": NOW}, None),
        ({"date": NOW}, None),
    ],
    ids=str,
)
def test_a_time_to_wait_for_becomes_seconds_by_the_providers_own_clock(
    headers: dict[str, str], seconds: str | None
) -> None:
    forwarded = wire.headers_for_client(headers)
    assert forwarded.get("retry-after") == (seconds or headers.get("retry-after"))
    assert "date" not in forwarded
