"""What guards the event loops in other tests does find a store call there."""

from __future__ import annotations

import asyncio
from pathlib import Path

from orchestrator.adapters import sql_store
from tests.event_loops import store_calls_on_loops
from tests.fakes.samples import NOW


def test_a_store_call_on_a_loop_is_found_and_others_are_not(migrated_sqlite: Path) -> None:
    store = sql_store.open_store(f"sqlite:///{migrated_sqlite}")

    async def on_the_loop() -> None:
        store.sessions.due(NOW, 10)

    async def in_a_thread() -> None:
        await asyncio.to_thread(store.sessions.due, NOW, 10)

    with store_calls_on_loops() as places:
        asyncio.run(in_a_thread())
        store.sessions.due(NOW, 10)
        assert places == []
        asyncio.run(on_the_loop())
    store.close()
    assert len(places) == 1
    assert "due" in places[0]
