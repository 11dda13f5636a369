"""A real nginx before two processes of the API: what it asks the other one for, and what it never
sends twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from orchestrator.adapters.proxy import nginx
from tests.integration.proxy.world import Handler, Head, World, respond_with, running_world

KEY = {"Idempotency-Key": "the same request"}
REFUSAL = respond_with("too many", "429 Too Many Requests")
TWICE = 2


@dataclass
class Processes:
    """Two processes. The first `failures` requests fail in this way, the others are answered."""

    world: World
    failure: Handler
    failures: int
    bodies: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many requests have reached them."""
        return len(self.bodies)

    async def handle(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        body = await reader.readexactly(int(head.headers.get("content-length", "0")))
        self.bodies.append(f"{head.method} {body.decode()}")
        answers = self.failure if self.requests <= self.failures else respond_with("fine")
        await answers(replace(head, headers={}), reader, writer)


@contextmanager
def two_processes(failure: Handler, failures: int = 1) -> Iterator[Processes]:
    with running_world(started=False) as world:
        processes = Processes(world=world, failure=failure, failures=failures)
        world.api.open(processes.handle)
        other = world.backends.serve(processes.handle, "127.0.0.1")
        addresses = tuple(f"127.0.0.1:{backend.port}" for backend in (world.api, other))
        world.settings = replace(world.settings, api_addresses=addresses)
        nginx.write_base(world.settings)
        world.start()
        yield processes


async def die(_: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End without an answer, after the request was read."""


def test_a_get_is_answered_by_the_other_process_when_one_dies() -> None:
    with two_processes(die) as processes:
        answer = processes.world.ask("localhost", "/api/status/x")
        assert (answer.status, answer.body, processes.requests) == (200, "fine", TWICE)


def test_a_post_that_may_have_been_carried_out_is_never_sent_twice() -> None:
    with two_processes(die) as processes:
        answer = processes.world.ask("localhost", "/api/sessions", "POST", body="{}")
        assert (answer.status, processes.bodies) == (503, ["POST {}"])
        assert "look before you repeat it" in answer.body


def test_a_post_with_an_idempotency_key_is_repeated_with_its_body() -> None:
    with two_processes(die) as processes:
        answer = processes.world.ask("localhost", "/api/sessions", "POST", body="{}", headers=KEY)
        assert (answer.status, answer.body) == (200, "fine")
        assert processes.bodies == ["POST {}", "POST {}"]


def test_a_request_that_saw_both_processes_end_is_answered_by_who_took_their_place() -> None:
    with two_processes(die, failures=TWICE) as processes:
        answer = processes.world.ask("localhost", "/api/status/x?wait=9")
        assert (answer.status, answer.body, processes.requests) == (200, "fine", TWICE + 1)
    with two_processes(die, failures=TWICE) as processes:
        answer = processes.world.ask("localhost", "/api/x", "POST", body="{}", headers=KEY)
        assert (answer.status, answer.body) == (200, "fine")
        assert processes.bodies == ["POST {}"] * (TWICE + 1)


@pytest.mark.parametrize("headers", [{}, KEY])
def test_a_process_that_is_gone_costs_no_request(headers: dict[str, str]) -> None:
    with two_processes(die, failures=0) as processes:
        processes.world.api.close()
        for _ in range(8):
            for method in ("GET", "POST"):
                answer = processes.world.ask("localhost", "/api/x", method, headers=headers)
                assert answer.status == 200
        assert processes.requests == 16


def test_when_all_processes_are_gone_the_answer_says_when_to_come_back() -> None:
    with two_processes(die, failures=100) as processes:
        for method, headers, requests in (("POST", {}, 1), ("POST", KEY, 4), ("GET", {}, 4)):
            processes.bodies.clear()
            answer = processes.world.ask("localhost", "/api/x", method, headers=headers)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert '"code":"api_unavailable"' in answer.body
            assert processes.requests == requests


def test_a_poll_that_one_process_refuses_may_wait_at_the_other() -> None:
    with two_processes(REFUSAL) as processes:
        assert processes.world.ask("localhost", "/api/status/x?wait=9").body == "fine"
    with two_processes(REFUSAL, failures=TWICE) as processes:
        refused = processes.world.ask("localhost", "/api/status/x?wait=9")
        assert (refused.status, refused.body) == (429, "too many")


def test_a_refusal_of_a_post_stands() -> None:
    for headers in ({}, KEY):
        with two_processes(REFUSAL) as processes:
            answer = processes.world.ask("localhost", "/api/x", "POST", headers=headers)
            assert (answer.status, processes.requests) == (429, 1)


def test_a_body_that_is_too_large_is_refused_with_or_without_a_key() -> None:
    with two_processes(die) as processes:
        for headers in ({}, KEY):
            answer = processes.world.ask(
                "localhost", "/api/x", "POST", body="x" * (1024**2 + 1), headers=headers
            )
            assert (answer.status, processes.requests) == (413, 0)
            assert '"code":"body_too_large"' in answer.body
