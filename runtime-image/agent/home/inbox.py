"""Polls home for assignments, as long as home wants this sandbox. Called by `work.py`."""

from __future__ import annotations

import asyncio

from agent.console import log
from agent.home.backoff import HOME_BACKOFF
from agent.home.client import HomeClient, HomeUnreachable, Response
from agent.jobs.runner import Runner
from orchestrator.contract.wire import Identity, ProtocolError, decode, parse_inbox

WAIT_S = 25
ANSWER_MARGIN_S = 10.0
DISMISSED = frozenset({401, 403, 410})


async def follow_inbox(home: HomeClient, identity: Identity, runner: Runner) -> None:
    """Poll, and hand each new assignment to `runner`. Return when home dismisses this sandbox."""
    wait_s = 0  # the first poll doesn't wait, so that home learns at once that we are warm
    failures = 0
    while True:
        response = await _poll(home, identity, runner.assignment_id, wait_s)
        if response is not None and response.status in DISMISSED:
            log("sandbox_dismissed", status=response.status)
            return
        if response is not None and await _accept(response, runner):
            wait_s = WAIT_S
            failures = 0
            continue
        await asyncio.sleep(HOME_BACKOFF.delay_s(failures))
        failures += 1


async def _poll(
    home: HomeClient, identity: Identity, current_id: str, wait_s: int
) -> Response | None:
    try:
        return await home.request(
            "GET",
            f"/agent/inbox?wait={wait_s}&have={quoted(current_id)}",
            token=identity.token,
            timeout_s=wait_s + ANSWER_MARGIN_S,
        )
    except HomeUnreachable:
        return None


async def _accept(response: Response, runner: Runner) -> bool:
    """Act on a response. False if it makes no sense; the next poll then waits a little."""
    if response.status == 204:
        return True
    if response.status != 200:
        log("inbox_failed", status=response.status)
        return False
    try:
        assignment = parse_inbox(decode(response.body, "answer"))
    except ProtocolError as error:
        log("assignment_rejected", error=str(error))
        return False
    if assignment.id == runner.assignment_id:
        return False
    await runner.replace(assignment)
    return True


def quoted(opaque: str) -> str:
    """Percent-encode an id for a query. (urllib.parse would cost start-up time.)"""
    return "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}"
        for byte in opaque.encode()
    )
