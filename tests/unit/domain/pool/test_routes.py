"""The route table: sorted, compared by hash, and never with two owners of one thing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import ids
from orchestrator.domain.pool import routes
from orchestrator.domain.pool.routes import Route


def made(slug: str, address: str = "10.0.0.1", port: int = 21000) -> Route:
    return Route(slug=ids.Slug(slug), address=address, port=port)


@pytest.mark.parametrize(
    "other",
    [
        made("a", port=21001),
        made("a", address="10.0.0.2"),
        made("b"),
        made("a"),
    ],
    ids=["slug on another port", "slug on another host", "endpoint", "all"],
)
def test_a_table_with_a_slug_or_an_endpoint_twice_is_refused(other: Route) -> None:
    with pytest.raises(ValueError, match="twice"):
        routes.table([made("a"), made("x", port=1), other])


def test_the_same_port_on_two_hosts_is_two_endpoints() -> None:
    table = routes.table([made("b", "10.0.0.2"), made("a", "10.0.0.1")])
    assert [one.slug for one in table.routes] == ["a", "b"]


tables = st.dictionaries(
    st.text("abc", min_size=1, max_size=3), st.integers(1, 9), max_size=6
).filter(lambda table: len(set(table.values())) == len(table))


@given(tables, st.data())
def test_the_order_of_rows_changes_neither_table_nor_digest(
    said: dict[str, int], data: st.DataObject
) -> None:
    rows = [made(slug, port=port) for slug, port in said.items()]
    shuffled = data.draw(st.permutations(rows))
    assert routes.table(shuffled) == routes.table(rows)
    assert routes.table(shuffled).digest == routes.table(rows).digest


@given(tables, tables)
def test_tables_have_the_same_digest_only_when_they_are_the_same(
    one: dict[str, int], other: dict[str, int]
) -> None:
    first = routes.table(made(slug, port=port) for slug, port in one.items())
    second = routes.table(made(slug, port=port) for slug, port in other.items())
    assert (first.digest == second.digest) == (one == other)
    assert len(first.digest) == 32
