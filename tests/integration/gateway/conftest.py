"""Fixtures of the gateway tests: fake providers, and gateways in front of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.llm.budgets import Budgets
from tests.event_loops import store_calls_on_loops
from tests.fakes.llm.providers import ProviderFake
from tests.integration.gateway.world import GatewayWorld, gateway_for, settings_for


@pytest.fixture
def provider() -> Iterator[ProviderFake]:
    with ProviderFake() as server:
        yield server


@pytest.fixture
def second() -> Iterator[ProviderFake]:
    """Another provider."""
    with ProviderFake() as server:
        yield server


@pytest.fixture
def served(
    provider: ProviderFake, tmp_path: Path, migrated_sqlite: Path
) -> Iterator[Callable[..., GatewayWorld]]:
    """Starts gateways in front of `provider`."""
    with contextlib.ExitStack() as stack:

        def serve(budgets: Budgets | None = None, **changes: Any) -> GatewayWorld:
            settings = settings_for(tmp_path, provider, **changes)
            return stack.enter_context(gateway_for(settings, migrated_sqlite, budgets))

        yield serve


@pytest.fixture(autouse=True)
def _no_store_call_on_a_loop() -> Iterator[None]:
    with store_calls_on_loops() as places:
        yield
    assert places == []
