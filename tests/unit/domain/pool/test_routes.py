"""The route table: sorted, compared by digest, and without duplicates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import ids
from orchestrator.domain.pool import routes
from orchestrator.domain.pool.routes import Route


def route(slug: str, address: str = "10.0.0.1", port: int = 21000) -> Route:
    return Route(slug=ids.Slug(slug), address=address, port=port)


@pytest.mark.parametrize(
    "other",
    [
        route("a", port=21001),
        route("a", address="10.0.0.2"),
        route("b"),
        route("a"),
    ],
    ids=["slug on another port", "slug on another host", "endpoint", "all"],
)
def test_routes_that_share_a_slug_or_an_endpoint_are_left_out_and_no_others(other: Route) -> None:
    table = routes.build_table([route("a"), route("x", port=1), other])
    assert table.routes == (route("x", port=1),)
    assert set(table.ambiguous) == {route("a"), other}


def test_the_same_port_on_two_hosts_is_two_endpoints() -> None:
    table = routes.build_table([route("b", "10.0.0.2"), route("a", "10.0.0.1")])
    assert [entry.slug for entry in table.routes] == ["a", "b"]


tables = st.dictionaries(
    st.text("abc", min_size=1, max_size=3), st.integers(1, 9), max_size=6
).filter(lambda table: len(set(table.values())) == len(table))


@given(tables, st.data())
def test_the_order_of_rows_changes_neither_table_nor_digest(
    ports: dict[str, int], data: st.DataObject
) -> None:
    rows = [route(slug, port=port) for slug, port in ports.items()]
    shuffled = data.draw(st.permutations(rows))
    assert routes.build_table(shuffled) == routes.build_table(rows)
    assert routes.build_table(shuffled).digest == routes.build_table(rows).digest


@given(tables, tables)
def test_tables_have_the_same_digest_only_when_they_are_the_same(
    ports: dict[str, int], other_ports: dict[str, int]
) -> None:
    first = routes.build_table(route(slug, port=port) for slug, port in ports.items())
    second = routes.build_table(route(slug, port=port) for slug, port in other_ports.items())
    assert (first.digest == second.digest) == (ports == other_ports)
    assert len(first.digest) == 32
