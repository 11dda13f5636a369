"""An app may listen on any name of loopback; if it listens elsewhere, the complaint says where."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from agent.apps import listeners
from agent.apps.app import first_answer
from agent.apps.listeners import addresses_of, describe, parse_table

from orchestrator.contract.health import Answer

DEADLINE_S = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 10001        0 11
   1: 020011AC:0BB9 00000000:0000 0A 00000000:00000000 00:00000000 00000000 10001        0 12
   2: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000 10001        0 13
   3: 0100007F:1F42 0100007F:0BB9 01 00000000:00000000 00:00000000 00000000 10001        0 11
   4: cut off
"""
TABLE_6 = """\
   0: 00000000000000000000000001000000:0BB9 0:0 0A 0:0 0:0 0 10001 0 11
   1: 00000000000000000000000000000000:0BBA 0:0 0A 0:0 0:0 0 10001 0 11
"""


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "0.0.0.0", "::", "::1"])
def test_an_app_is_reached_on_every_address_that_means_this_machine(address: str) -> None:
    async def run() -> Answer | None:
        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(OK)
            writer.close()

        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            # With ::1 alone nobody else may have the other address. All others get a port that is
            # free at this moment: one that was reserved before could be taken by now.
            port = reserved.getsockname()[1] if address == "::1" else 0
            async with asyncio.timeout(DEADLINE_S):
                server = await asyncio.start_server(serve, address, port)
                answer = await first_answer(server.sockets[0].getsockname()[1])
                server.close()
        return answer

    assert asyncio.run(run()) == Answer(status=200, is_empty=True)


def test_the_listeners_of_a_process_are_known_and_its_other_sockets_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listeners, "ADDRESSES_MAX", 1000)  # other tests' servers are ours, too
    with (
        socket.create_server(("127.0.0.2", 0)) as listener,
        socket.socket() as unused,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as listener_6,
    ):
        unused.bind(("127.0.0.1", 0))
        addresses = addresses_of([os.getpid(), 2**22])

        assert f"127.0.0.2:{listener.getsockname()[1]}" in addresses
        assert f"[::1]:{listener_6.getsockname()[1]}" in addresses
        assert f"127.0.0.1:{unused.getsockname()[1]}" not in addresses


def test_only_listeners_of_these_sockets_are_read() -> None:
    rows = parse_table(socket.AF_INET, TABLE.splitlines(), {"11", "12"})
    rows_6 = parse_table(socket.AF_INET6, TABLE_6.splitlines(), {"11"})

    assert rows == ["127.0.0.1:8000", "172.17.0.2:3001"]
    assert rows_6 == ["[::1]:3001", "[::]:3002"]


@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        ([], "it listens on no port"),
        (["127.0.0.1:8000"], "it listens on 127.0.0.1:8000 instead; use $HOST and $PORT"),
        (["172.17.0.2:3001"], "it listens on 172.17.0.2:3001 instead; use $HOST and $PORT"),
        (["127.0.0.1:8000", "[::]:3001"], "it listens there, but answers no request"),
    ],
)
def test_the_complaint_says_where_an_app_listens(addresses: list[str], reason: str) -> None:
    assert describe(addresses, 3001) == reason
