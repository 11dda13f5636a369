"""What a host's shell prints by itself is never taken for an answer, and harms that host alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.ssh.link import Link
from tests.integration.hosts.ssh_server import ShellHost, shell_host

_DEADLINE_S = 30


async def linked(host: ShellHost, until: Callable[[Link], bool], argv: tuple[str, ...]) -> str:
    """Follow a host until the condition holds. Returns the output of `argv` if it is up."""
    changed = asyncio.Event()
    link = Link(host.target, asyncio.Semaphore(1), changed.set)
    running = asyncio.create_task(link.run_forever())
    running.add_done_callback(lambda _: changed.set())
    try:
        async with asyncio.timeout(_DEADLINE_S):
            while not until(link):
                await changed.wait()
                changed.clear()
                assert not running.done(), running.exception()
        if not link.view.up:
            return f"{link.view.code}: {link.view.reason}"
        result = await link.run_command(argv, _DEADLINE_S)
        return f"{link.view.our_address} {result.code} {result.output}"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def try_link(folder: Path, start_up: str, until: Callable[[Link], bool], **options: str) -> str:
    async def run() -> str:
        async with shell_host(folder, start_up, **options) as host:
            return await linked(host, until, ("sh", "-c", "echo answer; echo trouble >&2; exit 3"))

    return asyncio.run(run())


@pytest.mark.parametrize(
    "greeting",
    [
        "echo Welcome to vps one",
        "echo hello",
        "printf 'no new line'",
        "echo 0 10.9.9.9",
        "seq 20000",
        "echo hello >&2",
    ],
)
def test_a_greeting_is_neither_a_fact_nor_a_heartbeat_nor_output(
    tmp_path: Path, greeting: str
) -> None:
    outcome = try_link(tmp_path, greeting, lambda link: link.view.up)
    assert outcome == "192.0.2.1 3 answer\ntrouble"


@pytest.mark.parametrize(
    ("start_up", "printed"),
    [("echo Closed for today; exit 0", "Closed for today"), ("exit 1", "nothing")],
)
def test_a_shell_that_runs_nothing_is_named_with_what_it_printed(
    tmp_path: Path, start_up: str, printed: str
) -> None:
    outcome = try_link(tmp_path, start_up, lambda link: link.view.has_outcome)
    assert outcome.startswith("shell_interferes: ")
    assert printed in outcome
    assert "~/.bashrc" in outcome


def test_a_shell_that_prints_without_end_is_cut(tmp_path: Path) -> None:
    outcome = try_link(tmp_path, "yes", lambda link: link.view.has_outcome)
    assert outcome.startswith("output_too_long: ")


@pytest.mark.parametrize(
    ("connection", "address"),
    [
        ("fe80::1%eth0 40000 fe80::2%eth0 22", "fe80::1"),
        ("::ffff:192.0.2.7 40000 192.0.2.2 22", "192.0.2.7"),
        ("", ""),
        ("somewhere", ""),
    ],
)
def test_our_address_is_parsed_or_unknown(tmp_path: Path, connection: str, address: str) -> None:
    outcome = try_link(tmp_path, "", lambda link: link.view.up, connection=connection)
    assert outcome == f"{address} 3 answer\ntrouble"
