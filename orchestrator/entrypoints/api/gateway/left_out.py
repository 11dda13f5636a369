"""What endpoints don't know: fields that they refused, and that their next requests go without.

`provider_chain` keeps one for each provider. domain/llm/optional_fields.py says what may be left
out.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.domain.llm import optional_fields
from orchestrator.entrypoints.api.gateway.providers.provider import ProviderRequest

_ENTRIES_MAX = 200  # clients choose the headers


class LeftOut:
    """The fields that one endpoint refused. Which it knows is up to the model and to what the
    request asks to try out."""

    def __init__(self) -> None:
        self._until_s: dict[tuple[str, str, str], float] = {}

    def names(self, request: ProviderRequest, now_s: float) -> frozenset[str]:
        """The fields to leave out of this request."""
        if not self._until_s:
            return frozenset()
        model, beta = _kind(request)
        return frozenset(
            name
            for (name, *kind), until_s in self._until_s.items()
            if kind == [model, beta] and now_s < until_s
        )

    def remember(self, request: ProviderRequest, names: Iterable[str], now_s: float) -> None:
        """The endpoint took this request without these fields, and not with them."""
        for name in names:
            self._until_s[name, *_kind(request)] = now_s + optional_fields.REMEMBER_S
        while len(self._until_s) > _ENTRIES_MAX:
            del self._until_s[next(iter(self._until_s))]


def _kind(request: ProviderRequest) -> tuple[str, str]:
    return request.parsed.model, request.headers.get("anthropic-beta", "")
