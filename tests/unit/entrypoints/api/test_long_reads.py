"""What long lists cost: how much is in one answer, and how much a user and an address may read."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import Counter as Metric
from starlette.testclient import TestClient

from orchestrator import config
from orchestrator.domain import errors
from orchestrator.domain.people.access import PROMPT_MAX_BYTES, Role
from orchestrator.domain.sessions.changes import Change
from orchestrator.domain.sessions.session import Tier
from orchestrator.entrypoints.api import public_app
from orchestrator.entrypoints.api.bounds.long_reads import ADDRESS, USER, LongReads, ReadLimits
from orchestrator.entrypoints.api.bounds.networks import network_of
from orchestrator.entrypoints.api.context import Context
from orchestrator.services.people import keys
from orchestrator.services.rates import Rate
from tests.fakes.hub import deaf_hub
from tests.fakes.samples import NOW
from tests.unit.entrypoints.api.conftest import Api
from tests.unit.services.world import World

LONG = "ü" * (PROMPT_MAX_BYTES // 2)
SMALL = Rate(per_s=1e-6, burst=0.01)  # seconds of processor time


def start(user: Api, **fields: Any) -> str:
    status, session = user("POST", "/api/sessions", {"template": "todo", **fields})
    assert status == 202, session
    return str(session["session_id"])


def get(api: Api, path: str) -> Any:
    status, body = api("GET", path)
    assert status == 200, body
    return body


# --- one answer -----------------------------------------------------------------------------------


def test_a_list_has_the_beginning_of_a_long_prompt_and_the_status_all_of_it(
    user: Api, operator: Api
) -> None:
    session_id = start(user, prompt=LONG)
    for api, path in ((user, "/api/sessions"), (operator, "/api/admin/sessions")):
        (listed,) = get(api, path)["sessions"]
        assert listed["prompt"] == LONG[:299] + "…"
        assert listed["prompt_is_cut"]
    assert get(user, f"/api/status/{session_id}")["prompt"] == LONG
    assert get(operator, f"/api/admin/sessions/{session_id}")["prompt"] == LONG


def test_a_list_has_all_of_a_short_prompt(user: Api) -> None:
    start(user, prompt="a todo list")
    (listed,) = get(user, "/api/sessions")["sessions"]
    assert (listed["prompt"], listed["prompt_is_cut"]) == ("a todo list", False)


def test_logs_are_the_last_lines_that_fit(world: World, user: Api) -> None:
    session = world.store.sessions.get(start(user))  # type: ignore[arg-type]  # its id
    lines = [f"{number} {'é' * 5000}" for number in range(100)]
    world.store.logs.append(session.id, lines, NOW)
    shown = [line["text"] for line in get(user, f"/api/sessions/{session.id}/logs")["lines"]]
    assert shown == lines[-26:], "26 lines of 10 kB make 256 KiB"


def test_messages_come_in_pages_of_so_many_bytes_the_latest_first(world: World, user: Api) -> None:
    session = world.store.sessions.get(start(user))  # type: ignore[arg-type]  # its id
    for number in range(1, 41):
        turns = replace(session.turns, requested=number)
        change = Change(
            session_id=session.id, number=number, text=LONG, restores=None, created_at=NOW
        )
        session = world.store.changes.add(change, replace(session, turns=turns), None)
    path = f"/api/sessions/{session.id}/messages"
    pages, page = [], get(user, path)
    pages.append([message["number"] for message in page["messages"]])
    while page["next"] is not None:
        page = get(user, f"{path}?cursor={page['next']}")
        pages.append([message["number"] for message in page["messages"]])
    assert pages == [[*range(25, 41)], [*range(9, 25)], [*range(1, 9)]]
    assert user("GET", f"{path}?limit=101")[0] == 422
    assert user("GET", f"{path}?cursor=x")[1]["code"] == "bad_cursor"


# --- many of them ---------------------------------------------------------------------------------


@pytest.fixture
def context(world: World, tmp_path: Path) -> Iterator[Context]:
    context = Context(
        settings=config.make(state_dir=tmp_path), deps=world.deps, hub=deaf_hub(), started_at=NOW
    )
    yield context
    context.threads.shutdown()


def statuses_of(context: Context, path: str, count: int, key: str) -> Counter[int]:
    """Of so many requests at once, while no thread is free for them. Those that are refused must be
    refused before any other one is answered."""

    async def ask() -> Counter[int]:
        transport = httpx2.ASGITransport(public_app.build(context), client=("2001:db8::1", 1))
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        may_read = threading.Event()
        for _ in range(5):
            context.threads.submit(may_read.wait, 30)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            asking = {asyncio.create_task(client.get(path, headers=headers)) for _ in range(count)}
            try:
                done, _ = await asyncio.wait(asking, timeout=20, return_when="FIRST_COMPLETED")
                assert all(task.result().json()["code"] == "too_many_reads" for task in done)
            finally:
                may_read.set()
            return Counter([(await task).status_code for task in asking])

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "path",
    [
        "/api/sessions",
        "/api/usage",
        *(f"/api/sessions/ID/{name}" for name in ("logs", "messages", "versions", "usage")),
    ],
)
def test_a_user_who_reads_too_much_at_once_is_refused(
    context: Context, world: World, path: str
) -> None:
    key = keys.create(world.deps, "ci", Tier.PRO, Role.USER).secret
    with TestClient(public_app.build(context), base_url="http://localhost") as client:
        session_id = start(Api(client, key))
    per_process = USER.waiting // 2
    statuses = statuses_of(context, path.replace("ID", session_id), per_process + 1, key)
    assert statuses == {200: per_process, 429: 1}


def test_visitors_of_one_address_count_together(context: Context) -> None:
    per_process = ADDRESS.waiting // 2
    statuses = statuses_of(context, "/api/sessions", per_process + 1, "")
    assert statuses == {200: per_process, 429: 1}


def test_a_house_with_ipv6_is_one_address() -> None:
    hosts = ["9.9.9.9", "::ffff:9.9.9.9", "2001:db8::1", "2001:db8::a:b:c:d", "2001:db8:0:1::1", ""]
    assert [network_of(host) for host in hosts] == [
        *("9.9.9.9", "9.9.9.9"),
        *("2001:db8::/64", "2001:db8::/64", "2001:db8:0:1::/64"),
        "",
    ]


# --- in turn, within a share ----------------------------------------------------------------------


def read_all(
    readers: list[list[tuple[str, str]]],
    make: Callable[[], object],
    limits: ReadLimits = USER,
) -> list[object]:
    """What reads of these readers, begun together, came to; errors too."""
    refusals = Metric("refusals", "Refusals", registry=None)

    async def test() -> list[object]:
        reads = LongReads(refusals, 1, user=limits, address=limits)
        with ThreadPoolExecutor(5) as threads:
            reading = (reads.read(threads, names, make) for names in readers)
            return await asyncio.gather(*reading, return_exceptions=True)

    return asyncio.run(test())


class Together:
    """Counts the threads that are in it at a time."""

    def __init__(self) -> None:
        self.most = 0
        self._inside = 0
        self._lock = threading.Lock()
        self._two = threading.Event()

    def __call__(self, wait_s: float = 0.05) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
            if self._inside == 2:
                self._two.set()
        self._two.wait(wait_s)
        with self._lock:
            self._inside -= 1


def test_reads_of_a_user_are_made_one_after_the_other() -> None:
    together = Together()
    read_all([[("user", "a")]] * 5, together)
    assert together.most == 1


def test_users_of_one_address_are_read_one_after_the_other() -> None:
    together = Together()
    read_all([[("user", name), ("address", "x")] for name in "abcde"], together)
    assert together.most == 1


def test_others_are_read_meanwhile_but_never_more_than_two() -> None:
    together = Together()
    read_all([[("user", name), ("address", name)] for name in "abcde"], lambda: together(20))
    assert together.most == 2


def test_who_has_used_up_a_share_is_refused_and_others_are_not() -> None:
    def burn() -> str:
        began_s = time.thread_time()
        while time.thread_time() - began_s < 2 * SMALL.burst:
            pass
        return "read"

    limits = ReadLimits(waiting=10, share=SMALL)
    by_user = read_all([[("user", "a")], [("user", "a")], [("user", "b")]], burn, limits)
    assert [by_user[0], by_user[2]] == ["read", "read"]
    assert isinstance(by_user[1], errors.LimitReached)
    assert by_user[1].code == "too_much_work"
    by_address = read_all(
        [[("user", user), ("address", address)] for user, address in ("ax", "bx", "cy")],
        burn,
        limits,
    )
    assert [type(outcome) for outcome in by_address] == [str, errors.LimitReached, str]
