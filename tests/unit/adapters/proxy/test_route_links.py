"""The route table as links on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.proxy.route_links import RouteLinks
from orchestrator.domain import errors, ids
from orchestrator.domain.pool.routes import Route, RouteTable, build_table

KEPT = Route(slug=ids.Slug("aaaabbbbcccc2345"), address="127.0.0.1", port=20000)
OTHER = Route(slug=ids.Slug("zzzzzzzzzzzzzzzz"), address="10.0.0.2", port=20001)
V6 = Route(slug=ids.Slug("mmmmmmmmmmmmmmmm"), address="fd00::7", port=20000)


@pytest.fixture
def links(tmp_path: Path) -> RouteLinks:
    links = RouteLinks(tmp_path)
    links.set_up()
    return links


def names(tmp_path: Path) -> set[str]:
    return {entry.name for entry in (tmp_path / "targets").iterdir()}


def test_each_route_is_a_link_to_its_endpoint(links: RouteLinks, tmp_path: Path) -> None:
    links.replace(build_table([KEPT, V6]))

    for slug, name in ((KEPT.slug, "127.0.0.1:20000"), (V6.slug, "[fd00::7]:20000")):
        assert Path(os.path.realpath(tmp_path / "routes" / slug)) == tmp_path / "targets" / name
        assert (tmp_path / "targets" / name).is_dir()


@pytest.mark.parametrize("table", [(), (KEPT,), (KEPT, OTHER, V6)])
def test_the_digest_is_that_of_the_table(links: RouteLinks, table: tuple[Route, ...]) -> None:
    for routes in ((KEPT,), (OTHER, V6), table):
        links.replace(build_table(routes))
        assert links.digest() == build_table(routes).digest


def publish(links: RouteLinks, *routes: Route) -> str:
    """Put a table in force as NginxProxy does. Returns its digest."""
    table = build_table(routes)
    links.replace(table, links.digest())
    links.seal(table.digest)
    return table.digest


def change_unseen(folder: Path, change: Callable[[], None]) -> None:
    """Change the links within the tick of the clock in which they were changed last."""
    before = folder.stat()
    change()
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_links_that_somebody_has_changed_are_read_again(links: RouteLinks, tmp_path: Path) -> None:
    folder = tmp_path / "routes"
    publish(links, KEPT, OTHER)
    (folder / OTHER.slug).unlink()
    os.utime(folder, ns=(0, folder.stat().st_mtime_ns + 1))  # its clock goes on in ticks

    assert links.digest() == build_table([KEPT]).digest
    assert publish(links, KEPT, OTHER) == links.digest()
    assert (folder / OTHER.slug).is_symlink()


def test_links_are_remembered_as_they_were_left_until_they_are_to_be_read_afresh(
    links: RouteLinks, tmp_path: Path
) -> None:
    digest = publish(links, KEPT, OTHER)
    change_unseen(tmp_path / "routes", (tmp_path / "routes" / OTHER.slug).unlink)
    assert links.digest() == digest
    links.forget()
    assert links.digest() == build_table([KEPT]).digest


def test_a_withdrawal_of_a_link_that_somebody_has_removed_unseen_is_no_error(
    links: RouteLinks, tmp_path: Path
) -> None:
    publish(links, KEPT, OTHER)
    change_unseen(tmp_path / "routes", (tmp_path / "routes" / OTHER.slug).unlink)
    assert publish(links, KEPT) == links.digest()
    assert RouteLinks(tmp_path).digest() == links.digest()


def test_what_another_publisher_has_done_in_the_same_tick_is_read(
    links: RouteLinks, tmp_path: Path
) -> None:
    publish(links, KEPT)
    other = RouteLinks(tmp_path)
    change_unseen(tmp_path / "routes", lambda: void(publish(other, KEPT, OTHER)))
    confirmed = build_table([KEPT, OTHER]).digest

    assert links.replace(build_table([KEPT]), confirmed), "it has withdrawn the other route"
    assert RouteLinks(tmp_path).digest() == build_table([KEPT]).digest


def test_the_draft_of_a_publisher_that_was_killed_is_no_obstacle(
    links: RouteLinks, tmp_path: Path
) -> None:
    draft = tmp_path / "routes" / ".draft"
    change_unseen(tmp_path / "routes", lambda: draft.symlink_to("../targets/x"))
    assert publish(links, KEPT) == links.digest()
    assert not os.path.lexists(draft)


def void(_: object) -> None:
    """For callbacks that return nothing."""


def test_only_a_change_or_a_withdrawal_can_be_in_use(links: RouteLinks) -> None:
    moved = Route(slug=KEPT.slug, address="10.0.0.3", port=20000)

    assert not links.replace(build_table([KEPT]))
    assert not links.replace(build_table([KEPT, OTHER]))
    assert not links.replace(build_table([KEPT, OTHER]))
    assert links.replace(build_table([moved, OTHER]))
    assert links.replace(build_table([OTHER]))


def test_endpoints_that_no_route_has_are_forgotten(links: RouteLinks, tmp_path: Path) -> None:
    links.replace(build_table([KEPT, OTHER]))
    links.seal(build_table([KEPT, OTHER]).digest)
    links.replace(build_table([OTHER]))
    links.seal(build_table([OTHER]).digest)

    assert names(tmp_path) == {"10.0.0.2:20001", build_table([OTHER]).digest}


def test_setting_up_again_keeps_the_routes(links: RouteLinks, tmp_path: Path) -> None:
    links.replace(build_table([KEPT]))
    links.seal(build_table([KEPT]).digest)

    RouteLinks(tmp_path).set_up()

    assert RouteLinks(tmp_path).digest() == build_table([KEPT]).digest


def test_what_is_no_link_of_ours_is_removed(links: RouteLinks, tmp_path: Path) -> None:
    folder = tmp_path / "routes"
    (folder / "a-file").write_text("")
    (folder / ("b" * 16)).symlink_to("/etc")
    (folder / "c").symlink_to("../targets/127.0.0.1:1")

    links.replace(build_table([KEPT]))

    assert {entry.name for entry in folder.iterdir()} == {"digest", KEPT.slug}


@pytest.mark.parametrize(
    "route",
    [
        Route(slug=ids.Slug("UPPERCASEUPPERCA"), address="10.0.0.1", port=1),
        Route(slug=ids.Slug("aaaaaaaaaaaaaaaa\n"), address="10.0.0.1", port=1),
        Route(slug=ids.Slug("../../aaaaaaaaaa"), address="10.0.0.1", port=1),
        Route(slug=ids.Slug("aaaaaaaaaaaaaaaa"), address="host.example.com", port=1),
        Route(slug=ids.Slug("aaaaaaaaaaaaaaaa"), address="10.0.0.1; } #", port=1),
        Route(slug=ids.Slug("aaaaaaaaaaaaaaaa"), address="10.0.0.1", port=0),
    ],
)
def test_what_is_no_route_changes_nothing(links: RouteLinks, route: Route) -> None:
    links.replace(build_table([KEPT]))

    with pytest.raises(errors.ProxyRejected):
        links.replace(RouteTable(routes=(route,)))

    assert links.digest() == build_table([KEPT]).digest
