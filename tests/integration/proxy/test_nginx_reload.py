"""Publishing to a real nginx: what is in force when `publish` returns, and when it raises."""

from __future__ import annotations

import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.proxy import nginx, nginx_config, nginx_workers
from orchestrator.domain import errors, ids
from orchestrator.domain.pool.routes import Route, RouteTable, table
from tests.integration.proxy.raw_http import read_all, read_until
from tests.integration.proxy.world import World, echo, hello, routes, until, world

HANDSHAKE = "GET / HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@pytest.fixture(name="w")
def _world() -> Iterator[World]:
    with world() as made:
        yield made


def test_the_first_table_in_force_is_the_empty_one(w: World) -> None:
    assert w.proxy.published() == table(()).digest


def test_a_published_table_is_in_force_and_no_older_worker_accepts(w: World) -> None:
    old = w.workers()
    slug, app = w.app()

    assert w.proxy.published() == routes({slug: app}).digest
    assert w.ask(w.host(slug)).body == slug
    assert not any(nginx_workers.accepts(worker) for worker in old)
    assert nginx_config.generations(w.settings.folder) == {routes({slug: app}).digest}


def test_a_table_that_is_in_force_already_costs_no_reload(w: World) -> None:
    slug, app = w.app()
    until(lambda: all(map(nginx_workers.accepts, w.workers())), "the old workers to end")
    before = w.workers()

    w.proxy.publish(routes({slug: app}))
    nginx.NginxProxy(w.settings).publish(routes({slug: app}))

    assert w.workers() == before


def test_a_route_that_could_say_more_to_nginx_than_an_address_is_rejected(w: World) -> None:
    slug, app = w.app()
    for bad in (
        Route(slug=ids.Slug("a; } server {"), address="127.0.0.1", port=1),
        Route(slug=ids.new_slug(), address="127.0.0.1; } #", port=1),
        Route(slug=ids.new_slug(), address="example.com", port=1),
        Route(slug=ids.new_slug(), address="127.0.0.1", port=65536),
    ):
        with pytest.raises(errors.ProxyRejected):
            w.proxy.publish(RouteTable(routes=(bad,)))

    assert w.proxy.published() == routes({slug: app}).digest


def test_what_nginx_refuses_never_replaces_the_last_good_table(w: World, tmp_path: Path) -> None:
    slug, app = w.app()
    live = (w.settings.folder / "routes.conf").read_bytes()
    shutil.copytree(w.settings.templates, tmp_path / "nginx")
    with (tmp_path / "nginx" / "routes.conf.j2").open("a") as template:
        template.write("no_such_directive on;\n")
    broken = nginx.NginxProxy(replace(w.settings, templates=tmp_path / "nginx"))

    with pytest.raises(errors.ProxyRejected, match='unknown directive "no_such_directive"'):
        broken.publish(table(()))

    assert (w.settings.folder / "routes.conf").read_bytes() == live
    assert w.proxy.published() == routes({slug: app}).digest
    assert w.ask(w.host(slug)).body == slug


def test_a_reload_that_nginx_refuses_leaves_the_last_good_table(w: World) -> None:
    slug, app = w.app()
    live = (w.settings.folder / "routes.conf").read_bytes()
    base = w.settings.folder / "nginx.conf"
    good = base.read_text()
    base.write_text(good + "by_hand on;\n")

    with pytest.raises(errors.ProxyRejected, match='unknown directive "by_hand"'):
        w.proxy.publish(table(()))

    assert (w.settings.folder / "routes.conf").read_bytes() == live
    assert nginx_config.generations(w.settings.folder) == {routes({slug: app}).digest}
    assert w.ask(w.host(slug)).body == slug
    base.write_text(good)
    w.proxy.publish(table(()))
    assert w.ask(w.host(slug)).status == 404


def test_an_nginx_that_is_away_is_told(w: World) -> None:
    slug, app = w.app()
    w.kill()

    assert w.proxy.published() is None
    with pytest.raises(errors.ProxyUnavailable, match="not running"):
        w.proxy.publish(table(()))
    assert nginx_config.last_good(w.settings.folder / "routes.conf") == routes({slug: app})


def test_a_folder_that_was_never_set_up_is_told(w: World, tmp_path: Path) -> None:
    with pytest.raises(errors.ProxyUnavailable, match="never set up"):
        nginx.NginxProxy(replace(w.settings, folder=tmp_path / "none")).publish(table(()))


def test_after_kill_9_nginx_serves_the_last_good_table_again(w: World) -> None:
    slug, app = w.app()
    w.kill()

    w.start()  # as a supervisor may, without write_base

    assert w.proxy.published() == routes({slug: app}).digest
    assert w.ask(w.host(slug)).body == slug
    w.proxy.publish(table(()))
    assert w.ask(w.host(slug)).status == 404


def test_setting_up_again_keeps_the_last_good_table(w: World) -> None:
    slug, _ = w.app()

    nginx.write_base(w.settings)
    assert w.ask(w.host(slug)).body == slug
    w.kill()
    nginx.write_base(w.settings)
    w.start()

    assert w.ask(w.host(slug)).body == slug


def test_a_damaged_table_is_not_taken_for_a_good_one(w: World) -> None:
    slug, _ = w.app()
    w.kill()
    live = w.settings.folder / "routes.conf"
    live.write_text(live.read_text().replace(slug, ids.new_slug()))

    nginx.write_base(w.settings)
    w.start()

    assert w.proxy.published() == table(()).digest


def test_a_reload_without_end_names_what_it_waited_for_and_is_confirmed_by_the_next() -> None:
    with world(reload_deadline_s=0.5) as w:
        patient = nginx.NginxProxy(replace(w.settings, reload_deadline_s=10))
        slug = ids.new_slug()
        wanted = routes({slug: w.backends.serve(hello(slug))})
        master = nginx_workers.master(w.settings.folder / "nginx.pid")
        nginx_workers.send(master, signal.SIGSTOP)
        with pytest.raises(errors.ProxyUnavailable, match=f"in vain for .*{wanted.digest}"):
            w.proxy.publish(wanted)
        nginx_workers.send(master, signal.SIGCONT)
        until(lambda: w.proxy.published() == wanted.digest, "the reload that came late")

        patient.publish(wanted)

        assert nginx_config.generations(w.settings.folder) == {wanted.digest}
        assert w.ask(w.host(slug)).body == slug


def test_a_request_that_was_begun_before_a_withdrawal_is_not_routed_after_it(w: World) -> None:
    slug, app = w.app()
    with w.connect() as silent, w.connect() as halfway:
        halfway.sendall(f"GET / HTTP/1.1\r\nHost: {w.host(slug)}\r\n".encode())
        # nginx accepts in order: an answer on a later connection means that it has these.
        for _ in w.workers():
            w.ask(w.host(slug))
        asked = len(app.heads)

        w.proxy.publish(table(()))
        app.open(hello("somebody else's"))

        silent.sendall(
            f"GET / HTTP/1.1\r\nHost: {w.host(slug)}\r\nConnection: close\r\n\r\n".encode()
        )
        halfway.sendall(b"Connection: close\r\n\r\n")
        assert read_all(silent).startswith("HTTP/1.1 404")
        assert read_all(halfway).startswith("HTTP/1.1 404")
        assert len(app.heads) == asked


def test_a_connection_from_before_a_reload_is_served_by_the_table_in_force(w: World) -> None:
    kept, kept_app = w.app()
    new = ids.new_slug()
    new_app = w.backends.serve(hello(new))
    with w.connect() as first, w.connect() as second:
        for _ in w.workers():
            w.ask(w.host(kept))

        w.proxy.publish(routes({kept: kept_app, new: new_app}))

        for client, slug, app in ((first, kept, kept_app), (second, new, new_app)):
            host = f"Host: {w.host(slug)}\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n"
            client.sendall(f"GET / HTTP/1.1\r\n{host}\r\n".encode())
            assert read_all(client).endswith(slug)
            assert app.heads[-1].headers["x-forwarded-for"] == "127.0.0.1"
            assert app.heads[-1].headers["x-forwarded-proto"] == "http"
            assert app.heads[-1].headers["host"] == w.host(slug)


def test_open_websockets_outlive_a_reload_but_old_workers_dont_live_for_ever() -> None:
    with world(worker_shutdown_timeout_s=1) as w:
        slug, app = w.app(echo)
        with w.connect() as client:
            client.sendall(HANDSHAKE.format(w.host(slug)).encode())
            read_until(client, b"\r\n\r\n")
            old = w.workers()

            w.proxy.publish(routes({slug: app, ids.new_slug(): w.backends.serve(echo)}))

            client.sendall(b"still here")
            assert read_until(client, b"still here") == b"still here"
            until(lambda: not any(map(nginx_workers.alive, old)), "the old workers to end")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == ""


def test_two_publishers_dont_confirm_each_others_reload(w: World) -> None:
    slug, app = w.app()
    other = nginx.NginxProxy(replace(w.settings, reload_deadline_s=0.3))
    with (
        w.proxy._alone(nginx._Deadline(1)),
        pytest.raises(errors.ProxyUnavailable, match="another"),
    ):
        other.publish(table(()))

    other = nginx.NginxProxy(w.settings)
    other.publish(table(()))
    assert w.ask(w.host(slug)).status == 404
    assert app.heads == []
