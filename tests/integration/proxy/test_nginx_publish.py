"""Publishing to a real nginx: the table in force when `publish` returns, and when it raises."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.proxy import nginx, nginx_config, nginx_workers
from orchestrator.adapters.proxy.route_links import RouteLinks
from orchestrator.domain import errors, ids
from orchestrator.domain.pool.routes import Route, RouteTable, build_table
from tests.integration.proxy.raw_http import read_all, read_until
from tests.integration.proxy.world import (
    APPS_ADDRESS,
    World,
    echo,
    respond_with,
    routes,
    running_world,
)

HANDSHAKE = "GET / HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@pytest.fixture(name="world")
def _world() -> Iterator[World]:
    with running_world() as world:
        yield world


def test_the_first_table_in_force_is_the_empty_one(world: World) -> None:
    assert world.proxy.published() == build_table(()).digest


def test_a_published_table_is_in_force(world: World) -> None:
    slug, app = world.publish_app()

    assert world.proxy.published() == routes({slug: app}).digest
    assert world.ask(world.host(slug)).body == slug


def test_no_publish_touches_a_worker_of_nginx(world: World) -> None:
    before = world.workers()
    slug, app = world.publish_app()
    world.publish_app()

    world.proxy.publish(routes({slug: app}))
    nginx.NginxProxy(world.settings).publish(routes({slug: app}))

    assert world.workers() == before
    assert world.ask(world.host(slug)).body == slug


def test_the_kernel_lists_the_workers_that_a_search_finds(world: World) -> None:
    master = nginx_workers.find_master(world.settings.folder / "nginx.pid")
    listed = nginx_workers._listed_children(master, "/proc")
    assert listed
    assert set(listed) == set(nginx_workers._searched_children(master, "/proc"))


def test_a_route_that_is_more_than_an_address_is_rejected(world: World) -> None:
    slug, app = world.publish_app()
    for route in (
        Route(slug=ids.Slug("a; } server {"), address="127.0.0.1", port=1),
        Route(slug=ids.new_slug(), address="127.0.0.1; } #", port=1),
        Route(slug=ids.new_slug(), address="example.com", port=1),
        Route(slug=ids.new_slug(), address="127.0.0.1", port=65536),
    ):
        with pytest.raises(errors.ProxyRejected):
            world.proxy.publish(RouteTable(routes=(route,)))

    assert world.proxy.published() == routes({slug: app}).digest


def test_publishing_without_a_running_nginx_raises(world: World) -> None:
    slug, app = world.publish_app()
    world.kill()

    assert world.proxy.published() is None
    with pytest.raises(errors.ProxyUnavailable, match="not running"):
        world.proxy.publish(build_table(()))
    assert RouteLinks(world.settings.folder).digest() == routes({slug: app}).digest


def test_publishing_to_a_folder_that_was_never_set_up_raises(world: World, tmp_path: Path) -> None:
    with pytest.raises(errors.ProxyUnavailable, match="never set up"):
        nginx.NginxProxy(replace(world.settings, folder=tmp_path / "none")).publish(build_table(()))


def test_after_kill_9_nginx_serves_the_last_good_table_again(world: World) -> None:
    slug, app = world.publish_app()
    world.kill()

    world.start()  # without write_base, as a supervisor may

    assert world.proxy.published() == routes({slug: app}).digest
    assert world.ask(world.host(slug)).body == slug
    world.proxy.publish(build_table(()))
    assert world.ask(world.host(slug)).status == 404


def test_setting_up_again_keeps_the_last_good_table(world: World) -> None:
    slug, _ = world.publish_app()

    nginx.write_base(world.settings)
    assert world.ask(world.host(slug)).body == slug
    world.kill()
    nginx.write_base(world.settings)
    world.start()

    assert world.ask(world.host(slug)).body == slug


def test_a_damaged_table_is_not_taken_for_the_one_in_force(world: World) -> None:
    slug, app = world.publish_app()
    (world.settings.folder / "routes" / slug).unlink()
    (world.settings.folder / "routes" / "by-hand").write_text("")

    assert world.proxy.published() == ""
    world.proxy.publish(routes({slug: app}))

    assert world.proxy.published() == routes({slug: app}).digest
    assert world.ask(world.host(slug)).body == slug


def test_a_publish_that_was_cut_off_is_completed_by_the_next_one(world: World) -> None:
    slug, app = world.publish_app()
    RouteLinks(world.settings.folder).replace(build_table(()))  # and then it ended

    assert world.proxy.published() == ""
    world.proxy.publish(routes({slug: app}))

    assert world.ask(world.host(slug)).body == slug


def test_an_nginx_that_hangs_is_named_and_the_next_publish_confirms_the_table() -> None:
    with running_world(publish_deadline_s=0.5) as world:
        patient_proxy = nginx.NginxProxy(replace(world.settings, publish_deadline_s=10))
        slug = ids.new_slug()
        wanted = routes({slug: world.backends.serve(respond_with(slug))})
        for worker in world.workers():
            os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(errors.ProxyUnavailable, match=f"in vain for .*{wanted.digest}"):
            world.proxy.publish(wanted)
        for worker in world.workers():
            os.kill(worker.pid, signal.SIGCONT)

        patient_proxy.publish(wanted)

        assert world.proxy.published() == wanted.digest
        assert world.ask(world.host(slug)).body == slug


def test_a_request_that_began_before_a_withdrawal_is_not_routed_after_it(world: World) -> None:
    slug, app = world.publish_app()
    with world.connect() as silent, world.connect() as halfway:
        halfway.sendall(f"GET / HTTP/1.1\r\nHost: {world.host(slug)}\r\n".encode())
        # nginx accepts in order: if it answers on a later connection, it has accepted these.
        for _ in world.workers():
            world.ask(world.host(slug))
        request_count = len(app.heads)

        world.proxy.publish(build_table(()))
        app.open(respond_with("somebody else's"))

        silent.sendall(
            f"GET / HTTP/1.1\r\nHost: {world.host(slug)}\r\nConnection: close\r\n\r\n".encode()
        )
        halfway.sendall(b"Connection: close\r\n\r\n")
        assert read_all(silent).startswith("HTTP/1.1 404")
        assert read_all(halfway).startswith("HTTP/1.1 404")
        assert len(app.heads) == request_count


def test_a_connection_from_before_a_publish_is_served_by_the_table_in_force(world: World) -> None:
    kept, kept_app = world.publish_app()
    new = ids.new_slug()
    new_app = world.backends.serve(respond_with(new))
    with world.connect() as first, world.connect() as second:
        for _ in world.workers():
            world.ask(world.host(kept))

        world.proxy.publish(routes({kept: kept_app, new: new_app}))

        for client, slug, app in ((first, kept, kept_app), (second, new, new_app)):
            forged = "X-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n"
            forged += "X_Forwarded_Proto: https\r\nX_Spawn-Probe: 1\r\n"
            host = f"Host: {world.host(slug)}\r\nConnection: close\r\n"
            client.sendall(f"GET / HTTP/1.1\r\n{forged}{host}\r\n".encode())
            assert read_all(client).endswith(slug)
            assert app.heads[-1].headers["x-forwarded-for"] == "127.0.0.1"
            assert app.heads[-1].headers["x-forwarded-proto"] == "http"
            assert "x-spawn-probe" not in app.heads[-1].headers
            assert app.heads[-1].headers["host"] == world.host(slug)


def test_a_route_that_changes_leads_to_the_new_place_at_once(world: World) -> None:
    slug, _ = world.publish_app()
    for number in range(20):
        app = world.backends.serve(respond_with(f"place {number}"))

        world.proxy.publish(routes({slug: app}))

        assert world.ask(world.host(slug)).body == f"place {number}"


def test_open_websockets_outlive_every_publish(world: World) -> None:
    slug, app = world.publish_app(echo)
    with world.connect() as client:
        client.sendall(HANDSHAKE.format(world.host(slug)).encode())
        read_until(client, b"\r\n\r\n")
        workers = world.workers()

        for _ in range(3):
            world.proxy.publish(routes({slug: app, ids.new_slug(): world.backends.serve(echo)}))

        client.sendall(b"still here")
        assert read_until(client, b"still here") == b"still here"
        assert world.workers() == workers  # none of them is to end, which would cut it


def test_a_withdrawal_waits_for_a_worker_that_has_not_ended_its_turn() -> None:
    with running_world() as world:
        impatient_proxy = nginx.NginxProxy(replace(world.settings, publish_deadline_s=1))
        slug, _ = world.publish_app()
        stopped, *others = world.workers()
        if not others:
            pytest.skip("with one worker, nobody answers while it is stopped")

        os.kill(stopped.pid, signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(errors.ProxyUnavailable, match="in vain"):
                impatient_proxy.publish(build_table(()))
            assert nginx_config.read_confirmed(world.settings.folder) is None
        os.kill(stopped.pid, signal.SIGCONT)
        world.proxy.publish(build_table(()))

        assert nginx_config.read_confirmed(world.settings.folder) == build_table(()).digest
        assert world.ask(world.host(slug)).status == 404


FLOOD = """
import os, socket, threading
def answer(client):
    client.recv(65536)
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\n\\r\\n")
    while True:
        client.sendall(b"some text that compresses well\\n" * 2000)
server = socket.create_server(("127.77.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    threading.Thread(target=answer, args=server.accept()[:1], daemon=True).start()
"""
DRAIN = """
import socket, sys
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
head = f"GET / HTTP/1.1\\r\\nHost: {sys.argv[2]}\\r\\nAccept-Encoding: gzip\\r\\n\\r\\n"
client.sendall(head.encode())
print(len(client.recv(65536)), flush=True)
while client.recv(65536):
    pass
"""


def test_workers_that_are_busy_delay_no_publish() -> None:
    with running_world(publish_deadline_s=15) as world, contextlib.ExitStack() as processes:
        slug = ids.new_slug()
        port = processes.enter_context(running_script(FLOOD))
        table = build_table([Route(slug=slug, address=APPS_ADDRESS, port=port)])
        world.proxy.publish(table)
        for _ in range(4):
            received = running_script(DRAIN, str(world.settings.listen_port), world.host(slug))
            assert processes.enter_context(received) > 0

        world.proxy.publish(build_table(()))

        assert world.proxy.published() == build_table(()).digest


@contextlib.contextmanager
def running_script(script: str, *arguments: str) -> Iterator[int]:
    """Run Python code of its own, since threads of ours are too slow. Yields what it prints."""
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def test_two_publishers_dont_confirm_each_others_table(world: World) -> None:
    slug, app = world.publish_app()
    other_proxy = nginx.NginxProxy(replace(world.settings, publish_deadline_s=0.3))
    with (
        world.proxy._publish_lock(nginx._Deadline(1)),
        pytest.raises(errors.ProxyUnavailable, match="another"),
    ):
        other_proxy.publish(build_table(()))

    other_proxy = nginx.NginxProxy(world.settings)
    other_proxy.publish(build_table(()))
    assert world.ask(world.host(slug)).status == 404
    assert app.heads == []
