"""Static apps through a real nginx: what it compresses, and what of that keeps its promises."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent.serving.front import Front
from agent.serving.site import Serving, Site, Slot
from agent.serving.static_files import Folder

from orchestrator.domain import ids
from orchestrator.domain.pool.routes import Route, build_table
from tests.integration.proxy.world import APPS_ADDRESS, World, running_world

SCRIPT = "console.log(1)\n" * 500
Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(name="world")
def _world() -> Iterator[World]:
    with running_world() as world:
        yield world


@pytest.fixture
def app(world: World, tmp_path: Path) -> Iterator[str]:
    """The host of a static app behind the agent's front."""
    (tmp_path / "index.html").write_text("page")
    (tmp_path / "app.js").write_text(SCRIPT)
    slug = ids.new_slug()
    slot = Slot(folder=str(tmp_path), port=1)
    site = Site(slot=slot)
    site.answer_to(slug)
    site.show(Serving.FILES, slot, Folder(root=slot.folder, spa=True))
    front = world.backends.run(Front(site).listen(APPS_ADDRESS, 0))
    port = front.sockets[0].getsockname()[1]
    world.proxy.publish(build_table([Route(slug=slug, address=APPS_ADDRESS, port=port)]))
    yield world.host(slug)
    world.backends.run(_close(front))


async def _close(front: asyncio.Server) -> None:
    front.close()


def ask(world: World, host: str, target: str, **headers: str) -> Answer:
    """Status, headers with names in lower case, and the body as it was sent."""
    connection = http.client.HTTPConnection("127.0.0.1", world.settings.listen_port, timeout=10)
    with contextlib.closing(connection):
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", target, headers={"Host": host, **fields})
        response = connection.getresponse()
        answered = {name.lower(): value for name, value in response.getheaders()}
        return response.status, answered, response.read()


def test_text_is_compressed_and_its_tag_is_good_for_a_304(world: World, app: str) -> None:
    status, headers, body = ask(world, app, "/app.js", Accept_Encoding="gzip")

    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert gzip.decompress(body).decode() == SCRIPT
    assert headers["vary"] == "Accept-Encoding"
    assert headers["etag"].startswith('W/"')
    again = ask(world, app, "/app.js", Accept_Encoding="gzip", If_None_Match=headers["etag"])
    assert again[0] == 304


def test_a_part_is_never_compressed_and_never_mixed_with_what_was(world: World, app: str) -> None:
    compressed = ask(world, app, "/app.js", Accept_Encoding="gzip")[1]["etag"]
    plain = ask(world, app, "/app.js")[1]["etag"]
    part = {"Accept_Encoding": "gzip", "Range": "bytes=2000-3999"}
    status, headers, body = ask(world, app, "/app.js", **part, If_Range=plain)

    assert (status, headers.get("content-encoding"), headers["etag"]) == (206, None, plain)
    assert headers["content-range"] == f"bytes 2000-3999/{len(SCRIPT)}"
    assert body.decode() == SCRIPT[2000:4000]
    assert ask(world, app, "/app.js", **part, If_Range=compressed)[0] == 200


def test_an_address_of_a_single_page_app_passes(world: World, app: str) -> None:
    assert ask(world, app, "/recipe/3", Accept="text/html")[::2] == (200, b"page")
    assert ask(world, app, "/recipe/3", Accept="*/*")[0] == 404
