"""Wake-ups over the real sockets: who hears what, and what becomes of what is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from orchestrator.adapters.events import wire
from orchestrator.adapters.events.sockets import SocketEvents
from orchestrator.domain import ids
from orchestrator.entrypoints.api.hub import Hub
from orchestrator.ports import topics

DEADLINE_S = 20
SESSION, OTHER = ids.new_session_id(), ids.new_session_id()


@pytest.fixture
def events(tmp_path: Path) -> Iterator[SocketEvents]:
    with contextlib.closing(SocketEvents(tmp_path / "events")) as events:
        yield events


def heard(listener: Iterator[str], count: int) -> list[str]:
    """The next topics. "" for an idle second is none."""
    return [next(topic for topic in listener if topic) for _ in range(count)]


def test_each_listener_hears_of_its_kinds_alone(events: SocketEvents) -> None:
    with (
        events.subscribe("daemon", [topics.POOL, topics.DUE]) as daemon,
        events.subscribe("agents", [topics.INBOX, topics.ROUTES]) as agents,
    ):
        events.session_changed(SESSION)
        events.routes_changed()
        events.session_due(SESSION)
        events.pool_changed()
        events.inbox_changed(ids.SandboxId("sbx_1"))
        assert heard(daemon, 2) == [f"due:{SESSION}", "pool"]
        assert heard(agents, 2) == ["routes", "inbox:sbx_1"]


def test_nobody_listens(events: SocketEvents) -> None:
    events.pool_changed()


def test_a_listener_that_ended_costs_nothing_and_its_successor_hears(events: SocketEvents) -> None:
    with events.subscribe("daemon", [topics.POOL]) as before:
        events.pool_changed()
        assert heard(before, 1) == ["pool"]
    events.pool_changed()
    events.pool_changed()
    with events.subscribe("daemon", [topics.POOL]) as after:
        events.pool_changed()
        assert heard(after, 1) == ["pool"]


def test_a_later_listener_of_the_same_name_takes_the_place_of_one_that_hangs(
    events: SocketEvents,
) -> None:
    with events.subscribe("daemon", [topics.POOL]) as hanging:
        events.pool_changed()
        with events.subscribe("daemon", [topics.POOL]) as successor:
            events.pool_changed()
            assert heard(successor, 1) == ["pool"]
        assert heard(hanging, 1) == ["pool"], "only what came before"


def test_a_listener_that_hangs_makes_nobody_wait_and_then_knows_that_it_missed_some(
    events: SocketEvents,
) -> None:
    with events.subscribe("daemon", [topics.POOL, topics.ROUTES]) as listener:
        sending = threading.Thread(
            target=lambda: [events.pool_changed() for _ in range(50_000)], daemon=True
        )
        sending.start()
        sending.join(DEADLINE_S)
        assert not sending.is_alive(), "it waits for the listener"
        backlog = [topic for topic in iter(lambda: next(listener), "") if topic]
        assert 0 < len(backlog) < 50_000
        assert set(backlog) == {"pool"}
        events.pool_changed()
        assert heard(listener, 3) == ["pool", "routes", "pool"], "all kinds, then the new one"


def test_events_of_several_threads_arrive_whole(events: SocketEvents) -> None:
    def send() -> None:
        for _ in range(20):
            events.session_due(SESSION)

    with events.subscribe("daemon", [topics.DUE]) as listener:
        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert heard(listener, 160) == [f"due:{SESSION}"] * 160
        for thread in threads:
            thread.join()


def test_another_process_is_heard(events: SocketEvents, tmp_path: Path) -> None:
    with events.subscribe("daemon", [topics.POOL]) as listener:
        child = os.fork()
        if child == 0:
            SocketEvents(tmp_path / "events").pool_changed()
            os._exit(0)
        os.waitpid(child, 0)
        assert heard(listener, 1) == ["pool"]


def test_a_long_path_of_the_state_folder_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    with (
        contextlib.closing(SocketEvents(folder / "events")) as events,
        events.subscribe("daemon", [topics.POOL]) as listener,
    ):
        events.pool_changed()
        assert heard(listener, 1) == ["pool"]


def test_a_folder_that_cannot_be_written_leaves_the_listener_deaf_until_it_can(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "events"
    folder.write_text("a file in its place")
    with (
        contextlib.closing(SocketEvents(folder)) as events,
        events.subscribe("daemon", [topics.POOL]) as listener,
    ):
        assert next(listener) == ""
        events.pool_changed()
        folder.unlink()
        assert next(listener) == "", "it has bound its socket before it waited"
        events.pool_changed()
        assert heard(listener, 1) == ["pool"]


def test_a_hub_wakes_those_who_wait_for_the_topic(events: SocketEvents, tmp_path: Path) -> None:
    async def scene() -> None:
        hub = Hub(tmp_path / "events", "api-1", [topics.SESSION])
        running = asyncio.create_task(hub.run())
        mine = topics.topic_of(topics.SESSION, SESSION)
        other = topics.topic_of(topics.SESSION, OTHER)
        with hub.watch(mine) as watch, hub.watch(other) as other_watch:
            assert await watch.wait(DEADLINE_S), "it listens now"
            assert await other_watch.wait(DEADLINE_S)
            await asyncio.to_thread(events.session_changed, SESSION)
            assert await watch.wait(DEADLINE_S)
            assert not await other_watch.wait(0), "an event of another session"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    uvloop.run(scene())


def test_a_hub_that_missed_events_wakes_everybody(tmp_path: Path) -> None:
    async def scene() -> None:
        hub = Hub(tmp_path, "api-1", [topics.SESSION])
        with hub.watch("session:a") as first, hub.watch("session:b") as second:
            hub.wake(wire.MISSED)
            assert await first.wait(0)
            assert await second.wait(0)

    uvloop.run(scene())


def test_a_hub_that_cannot_listen_lets_polls_look_often_until_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    folder.write_text("a file in its place")

    async def scene() -> None:
        hub = Hub(folder, "api-1", [topics.SESSION])
        deaf_s = hub.recheck_s
        running = asyncio.create_task(hub.run())
        with hub.watch("session:a") as watch:
            assert not await watch.wait(0.1)
            assert hub.recheck_s == deaf_s
            folder.unlink()
            assert await watch.wait(DEADLINE_S), "all look once it listens"
            assert hub.recheck_s > deaf_s
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    uvloop.run(scene())


def test_half_a_line_counts_once_it_is_whole() -> None:
    decoder = wire.Decoder()
    assert decoder.feed(b"po") == []
    assert decoder.feed(b"ol\nroutes\ndu") == ["pool", "routes"]


def test_a_socket_is_never_there_before_it_listens(tmp_path: Path) -> None:
    listening = wire.bind(tmp_path, "daemon", [topics.POOL])
    (name,) = [path.name for path in tmp_path.iterdir()]
    assert wire.listens_to(name, topics.POOL)
    assert not wire.listens_to(name, topics.ROUTES)
    assert not wire.listens_to("." + name, topics.POOL), "a draft"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / name))
    listening.close()
