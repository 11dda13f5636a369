"""Runs a program in a network of its own: it reaches the gateway, and nothing else.

`run` starts this file again in a new network namespace, which has loopback alone. There a port
leads to the gateway's UNIX socket. The program is told to ask a proxy for all other servers; that
proxy refuses, and writes down what it was asked for.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_HOST = "127.0.0.1"
_PROGRAM_S = 90
_WITHIN_S = _PROGRAM_S + 30
_CHUNK_BYTES = 64 * 1024
_REFUSAL = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a program did."""

    status: int  # as Popen.returncode
    output: str
    errors: str
    asked_outside: Sequence[str]  # the first line of each request to another server


def run(argv: Sequence[str], gateway: Path, environment: Mapping[str, str], folder: Path) -> Ended:
    """Run a program in `folder` to its end. `gateway`: the socket behind ANTHROPIC_BASE_URL.

    The program is killed after 90 s. Raises subprocess.CalledProcessError if there can't be such a
    network here.
    """
    inside = ("unshare", "--map-root-user", "--net", sys.executable, __file__)
    ended = subprocess.run(
        [*inside, str(gateway), str(folder), *argv],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=_WITHIN_S,
        check=True,
    )
    return Ended(**json.loads(ended.stdout))


async def _run_inside(gateway: str, folder: str, argv: Sequence[str]) -> Ended:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    asked: list[str] = []
    server = await asyncio.start_server(_forwarder(gateway), _HOST, 0)
    proxy = await asyncio.start_server(_refuser(asked), _HOST, 0)
    addresses = {
        "ANTHROPIC_BASE_URL": _url(server),
        "HTTP_PROXY": _url(proxy),
        "HTTPS_PROXY": _url(proxy),
        "NO_PROXY": _HOST,
    }
    program = await asyncio.create_subprocess_exec(
        *argv,
        cwd=folder,
        env={**os.environ, **addresses},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    killing = asyncio.get_running_loop().call_later(_PROGRAM_S, _kill, program.pid)
    output, errors = await program.communicate()
    killing.cancel()
    status = await program.wait()
    return Ended(status=status, output=output.decode(), errors=errors.decode(), asked_outside=asked)


def _forwarder(gateway: str) -> Callable[..., object]:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_unix_connection(gateway)
        await asyncio.gather(_copy(reader, requests), _copy(answers, writer))

    return forward


def _refuser(asked: list[str]) -> Callable[..., object]:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode("latin-1").strip())
        writer.write(_REFUSAL)
        writer.close()

    return refuse


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    writer.close()


def _url(server: asyncio.Server) -> str:
    return f"http://{_HOST}:{server.sockets[0].getsockname()[1]}"


def _kill(pid: int) -> None:
    os.killpg(pid, signal.SIGKILL)  # it leads a group, of itself and its tools


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(_run_inside(sys.argv[1], sys.argv[2], sys.argv[3:])))))
