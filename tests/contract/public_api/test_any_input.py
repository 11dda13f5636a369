"""Whatever anybody sends to the public API, no request ends in an error of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from orchestrator.domain.people.access import Role
from orchestrator.domain.sessions.session import Tier
from orchestrator.services.people import keys
from tests.unit.entrypoints.api.conftest import serving
from tests.unit.entrypoints.api.test_hosts import NEW
from tests.unit.services.world import World

Json = Mapping[str, Any]

GOOD: Json = {
    **NEW,
    "limit": 10,
    "prompt": "a kanban board",
    "role": "user",
    "template": "todo",
    "text": "make it blue",
    "tier": "pro",
    "ttl": "2h",
    "version": 1,
}
"""Values of which each is accepted, by the name of the parameter or field."""

NAMELESS_HEADERS = ("accept", "authorization", "cookie", "if-none-match", "origin", "x-other")

texts = st.one_of(
    st.sampled_from(["\0", "\ud800", "a\0b", "", " ", "%", "..", "true", "nan", "1_0", "²"]),
    st.builds("a".__mul__, st.sampled_from([64, 256, 5000])),
    st.builds("9".__mul__, st.sampled_from([10, 19, 400, 4200, 4400])),
    st.text(max_size=20),
)
numbers = st.one_of(
    st.sampled_from([0, -1, 2**31, 2**63, -(2**63) - 1, 10**400, 10**4200]),
    st.integers(),
    st.floats(),
)
plain_values = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.one_of(
    plain_values,
    st.lists(plain_values, max_size=4),
    st.dictionaries(texts, plain_values, max_size=4),
)
many_labels = st.integers(30, 5000).map(
    lambda count: {f"k{number}": "v" for number in range(count)}
)
cursors = st.one_of(
    st.builds("{}.{}.{}".format, st.integers(0, 2), st.integers(-1, 10**18), st.just("a" * 26)),
    st.integers(-1, 10**20).map(str),
)
whole_bodies = st.sampled_from([b"[" * 60_000, b'{"a":' * 20_000, b"\xff\xfe", b"", b"null", b"{"])


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input of an operation. `place`: path, query, header, field or body."""

    method: str
    path: str
    place: str
    name: str
    fields: tuple[str, ...]  # of the operation's body


def inputs_of(openapi: Json) -> list[Input]:
    """Everything that the operations read, headers that none of them names, and paths of files."""
    inputs = []
    for path, methods in sorted(openapi["paths"].items()):
        for method, operation in sorted(methods.items()):
            fields = fields_of(openapi, operation)
            places = [(each["in"], each["name"]) for each in operation.get("parameters", ())]
            places += [("field", name) for name in (*fields, "unknown")] if fields else []
            places += [("body", "")] if fields else []
            places += [("header", name) for name in NAMELESS_HEADERS]
            inputs += [
                Input(method=method.upper(), path=path, place=place, name=name, fields=fields)
                for place, name in places
            ]
    return [*inputs, Input(method="GET", path="/{name}", place="path", name="name", fields=())]


def fields_of(openapi: Json, operation: Json) -> tuple[str, ...]:
    if "requestBody" not in operation:
        return ()
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    return tuple(openapi["components"]["schemas"][reference.rpartition("/")[2]]["properties"])


@st.composite
def requests(draw: st.DrawFn, inputs: list[Input], known: Json) -> dict[str, Any]:
    """A request with one odd input. All others are good, so that it goes as far as possible."""
    odd = draw(st.sampled_from(inputs))
    value = draw(values_for(odd.name))
    good = {**GOOD, **known}
    path = odd.path
    for name in good:
        path = path.replace("{" + name + "}", str(good[name]) if name != odd.name else "{odd}")
    request: dict[str, Any] = {"method": odd.method, "headers": [], "content": b""}
    if odd.fields:
        body = {name: good[name] for name in odd.fields if name in good}
        if odd.place == "field":
            body[odd.name] = value
        request["content"] = json.dumps(body).encode("ascii")
    if odd.place == "path":
        path = path.replace("{odd}", in_url(value)).replace("{" + odd.name + "}", in_url(value))
    elif odd.place == "query":
        path += f"?{odd.name}={in_url(value)}"
    elif odd.place == "header":
        beginning = draw(st.sampled_from(["", "Bearer ", "Bearer spk_", "spawn_user=vst."]))
        request["headers"] = [(odd.name.encode(), in_header(beginning + as_text(value)))]
    elif odd.place == "body":
        request["content"] = draw(whole_bodies)
    return {**request, "url": path}


def values_for(name: str) -> st.SearchStrategy[Any]:
    if name == "cursor":
        return st.one_of(cursors, texts)
    return st.one_of(many_labels, values) if name == "labels" else values


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def in_url(value: Any) -> str:
    return quote_from_bytes(as_text(value).encode("utf-8", "surrogatepass")[:5000], safe="")


def in_header(text: str) -> bytes:
    visible = "".join(char for char in text if char.isprintable())  # a server refuses the others
    return visible.encode()[:5000]


@pytest.fixture
def client(world: World, tmp_path: Path) -> Iterator[TestClient]:
    """A client with an operator's key: no other caller reaches as much code."""
    new_key = keys.create(world.deps, "ops", Tier.OPERATOR, Role.OPERATOR)
    with serving(world, tmp_path) as client:
        client.headers["authorization"] = f"Bearer {new_key.secret}"
        client.headers["content-type"] = "application/json"
        yield client


def test_no_input_ends_in_an_error_of_ours(world: World, client: TestClient) -> None:
    world.add_host(name="alpha", region="eu", labels={"gpu": "yes"})
    known = {
        "session_id": world.run_session(world.create_session()).id,
        "key_id": "key_" + "a" * 26,
    }

    @settings(max_examples=400)
    @given(requests(inputs_of(client.get("/openapi.json").json()), known))
    def check(request: dict[str, Any]) -> None:
        answer = client.request(**request)
        assert answer.status_code != 500
        if answer.status_code >= 400 and request["url"] != "/ready":
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"]
            assert len(answer.content) < 3000
            assert answer.status_code != 422 or answer.json()["field"]

    check()
