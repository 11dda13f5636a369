"""The standby: says who leads, and does nothing else. The supervisor runs it in place of all other
processes, when another control plane uses the same database.

It answers at the address of the page, and keeps the sentence that `spawnctl up` prints in a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from orchestrator import config, observability
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.domain import errors
from orchestrator.entrypoints import children
from orchestrator.entrypoints.api import serving
from orchestrator.entrypoints.api.errors import problems
from orchestrator.entrypoints.leadership.other_leader import OtherLeader, Search
from orchestrator.slim import structlog

_POLL_S = 2.0
_CONNECTIONS_MAX = 100

log = structlog.get_logger()


def main() -> None:
    """Serve until SIGTERM."""
    settings = config.load()
    observability.configure(settings.processes.log_level, "standby")
    places = settings.places
    search = Search(
        url=places.effective_database_url,
        installation=StateFolder(places.state_dir).instance(),
        state_dir=places.state_dir,
    )
    standby = Standby(search=search)
    standby.look()
    server = serving.make_server(
        build(standby),
        host=settings.addresses.http_address,
        port=settings.addresses.http_port,
        limit_concurrency=_CONNECTIONS_MAX,
    )
    asyncio.run(_serve(server, standby))


@dataclass
class Standby:
    """What we know of the other control plane."""

    search: Search
    text: str = ""

    def look(self) -> None:
        """Ask the database again. Blocks."""
        try:
            text = (self.search.look() or OtherLeader(host="")).describe()
        except errors.SpawnError as error:
            text = f"standby: it is unknown who leads, because {error}"
        if text != self.text:
            log.warning("standby_waits", reason=text)
            self.text = text
            write(self.search.state_dir, text)


def write(state_dir: Path, text: str) -> None:
    """Keep the sentence for `spawnctl up`."""
    with contextlib.suppress(OSError):  # on a full disk; /ready says it as well
        (state_dir / children.STANDBY_FILE).write_text(text + "\n", "utf-8")


def build(standby: Standby) -> Starlette:
    """The ASGI app: health, readiness and metrics; everything else is refused with the reason."""

    def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    def ready(_: Request) -> Response:
        check = {"ok": False, "detail": standby.text}
        return JSONResponse({"ready": False, "checks": {"standby": check}}, status_code=503)

    def metrics(_: Request) -> Response:
        return PlainTextResponse("# TYPE spawn_standby gauge\nspawn_standby 1\n")

    def refuse(_: Request) -> Response:
        return problems.problem(503, "standby", standby.text, headers={"Retry-After": "60"})

    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return Starlette(
        routes=[
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", metrics),
            Route("/{path:path}", refuse, methods=methods),
        ]
    )


async def _serve(server: serving.Server, standby: Standby) -> None:
    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    looking = asyncio.create_task(_look_forever(standby))
    looking.add_done_callback(lambda task: None if task.cancelled() else stop())
    await server.serve()
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking


async def _look_forever(standby: Standby) -> None:
    while True:
        await asyncio.sleep(_POLL_S)
        await asyncio.to_thread(standby.look)


if __name__ == "__main__":
    main()
