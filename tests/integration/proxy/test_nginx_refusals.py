"""What a real nginx refuses by itself: problem JSON for programs, a page for browsers."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from orchestrator.adapters.proxy.client_limits import ClientLimits
from orchestrator.adapters.proxy.refusals import PAGE_METHODS, REFUSALS
from orchestrator.contract.heads import HEAD_MAX_BYTES
from tests.integration.proxy.world import ROOT, Head, Response, World, respond_with, running_world

HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
JSON = "application/json"
PROBLEM = "application/problem+json"
HOSTS = ("page", "app", "unknown")


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A request that nginx refuses."""

    line: str = "GET /x HTTP/1.1"
    headers: str = ""
    body: str = ""
    status: int = 400
    code: str = "bad_request"


REQUESTS = {
    "a Content-Length that is no number": Wrong(headers="Content-Length: x\r\n"),
    "two lengths": Wrong(headers="Content-Length: 1\r\nContent-Length: 2\r\n"),
    "a length and chunks": Wrong(headers="Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
    "a zero byte": Wrong(headers="X-Odd: a\0b\r\n"),
    "TRACE": Wrong(line="TRACE /x HTTP/1.1", status=405, code="method_not_allowed"),
    "CONNECT": Wrong(line="CONNECT /x HTTP/1.1", status=405, code="method_not_allowed"),
    "an unknown transfer coding": Wrong(
        headers="Transfer-Encoding: gzip\r\n", status=501, code="transfer_coding_unknown"
    ),
    "too long a header": Wrong(
        headers=f"X-Long: {'x' * HEAD_MAX_BYTES}\r\n", status=431, code="head_too_large"
    ),
}
# nginx doesn't get as far as the name for which these are.
NAMELESS = {
    "a first line that is none": Wrong(line="GE T"),
    "an address without a beginning": Wrong(line="GET x HTTP/1.1"),
    "an address with a zero byte": Wrong(line="GET /%00 HTTP/1.1"),
    "an address above its root": Wrong(line="GET /%2e%2e/x HTTP/1.1"),
    "an address with a space": Wrong(line="GET /a b HTTP/1.1"),
    "a method in small letters": Wrong(line="get /x HTTP/1.1"),
    "TLS": Wrong(line="\x16\x03\x01\x02"),
    "a version of the future": Wrong(
        line="GET /x HTTP/9.9", status=505, code="http_version_unknown"
    ),
    "too long an address": Wrong(
        line=f"GET /{'x' * HEAD_MAX_BYTES} HTTP/1.1", status=414, code="uri_too_long"
    ),
}


@pytest.fixture(name="world", scope="module")
def _world() -> Iterator[World]:
    with running_world() as world:
        yield world


def send(world: World, wrong: Wrong, host: str, accept: str) -> Response:
    """What nginx answers, on a connection of its own. The Host header stands before the others."""
    app = world.host("a" * 16)  # before anybody asks whether it runs
    hosts = {"page": "localhost", "app": app, "unknown": "evil.example"}
    accepts = f"Accept: {accept}\r\n" if accept else ""
    head = f"{wrong.line}\r\nHost: {hosts[host]}\r\n{accepts}{wrong.headers}\r\n"
    with world.connect() as client:
        client.sendall(head.encode("latin-1") + wrong.body.encode())
        answer = http.client.HTTPResponse(client)
        answer.begin()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Response(status=answer.status, headers=headers, body=answer.read().decode())


def code_of(response: Response) -> str:
    """The code of a problem that says the status of its answer."""
    assert response.headers["content-type"] == PROBLEM, response
    problem = json.loads(response.body)
    assert problem["status"] == response.status
    assert problem["title"]
    assert problem["detail"].endswith(".")
    return str(problem["code"])


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("accept", [JSON, PROBLEM, "text/plain, Application/JSON;q=0.9"])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_program_gets_a_problem(world: World, name: str, accept: str, host: str) -> None:
    wrong = REQUESTS[name]
    response = send(world, wrong, host, accept)
    assert (response.status, code_of(response)) == (wrong.status, wrong.code)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", REQUESTS)
def test_a_browser_gets_a_page(world: World, name: str, host: str) -> None:
    wrong = REQUESTS[name]
    response = send(world, wrong, host, HTML)
    assert (response.status, response.headers["content-type"]) == (wrong.status, "text/html")
    assert f"<small>{wrong.status}</small>" in response.body
    assert response.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("path", ["/api", "/api/sessions"])
def test_an_address_of_the_api_is_for_programs_whoever_asks(
    world: World, path: str, host: str
) -> None:
    line = f"TRACE {path} HTTP/1.1"
    for accept in (HTML, "*/*", ""):
        assert code_of(send(world, Wrong(line=line), host, accept)) == "method_not_allowed"


@pytest.mark.parametrize(("host", "is_page"), [("page", False), ("app", True), ("unknown", True)])
def test_who_says_nothing_gets_what_the_name_is_for(world: World, host: str, is_page: bool) -> None:
    for path in ("/", "/apiary", "/text/html"):
        response = send(world, Wrong(line=f"TRACE {path} HTTP/1.1"), host, "*/*")
        assert (response.headers["content-type"] == "text/html") is is_page
        assert response.status == 405


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", NAMELESS)
def test_what_makes_no_sense_is_told_in_problems(world: World, name: str, host: str) -> None:
    wrong = NAMELESS[name]
    response = send(world, wrong, host, HTML)
    assert (response.status, code_of(response)) == (wrong.status, wrong.code)


@pytest.mark.parametrize(
    "hosts", ["", "Host: a/b\r\n", "Host: localhost\r\nHost: localhost\r\n", "Host: \0\r\n"]
)
def test_a_host_header_that_makes_no_sense_is_refused(world: World, hosts: str) -> None:
    with world.connect() as client:
        client.sendall(f"GET /x HTTP/1.1\r\nAccept: {JSON}\r\n{hosts}\r\n".encode())
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert (answer.status, json.loads(answer.read())["code"]) == (400, "bad_request")


@pytest.mark.parametrize("host", HOSTS)
def test_a_refused_method_is_told_which_are_passed_on(world: World, host: str) -> None:
    for accept in (HTML, JSON):
        response = send(world, Wrong(line="TRACE / HTTP/1.1"), host, accept)
        assert response.headers["allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    assert "allow" not in send(world, REQUESTS["two lengths"], host, JSON).headers


@pytest.mark.parametrize("method", ["BREW", "FOO-BAR", "PROPFIND", "GETS", "X" * 200])
def test_the_page_gets_no_method_that_it_does_not_know(world: World, method: str) -> None:
    world.api.heads.clear()
    for path, form in (("/x", HTML), ("/x", JSON), ("/api/sessions", HTML), ("/static/x", JSON)):
        headers = "Content-Length: 2000000\r\n" if path == "/x" else ""
        wrong = Wrong(line=f"{method} {path} HTTP/1.1", headers=headers)
        response = send(world, wrong, "page", form)
        assert response.status == 405
        if form == HTML and path == "/x":
            assert "<small>405</small>" in response.body
        else:
            assert code_of(response) == "method_not_allowed"
        all_methods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
        assert response.headers["allow"] == ("GET, HEAD" if "static" in path else all_methods)
    assert world.api.heads == []


@pytest.mark.parametrize("method", PAGE_METHODS)
def test_the_page_gets_each_method_that_refusals_name(world: World, method: str) -> None:
    world.api.heads.clear()
    assert world.ask("localhost", "/x", method).status == 200
    assert [head.method for head in world.api.heads] == [method]


@pytest.mark.parametrize("method", ["BREW", "FOO-BAR", "PROPFIND", "X" * 200])
def test_an_app_gets_any_method(world: World, method: str) -> None:
    slug, app = world.publish_app()
    assert world.ask(world.host(slug), "/x", method).status == 200
    assert [head.method for head in app.heads] == [method]


@pytest.mark.parametrize(
    ("host", "status", "code"), [("page", 413, "body_too_large"), ("unknown", 421, "host_refused")]
)
@pytest.mark.parametrize(
    "headers", ["Content-Length: 2000000\r\n", "Transfer-Encoding: chunked\r\n"]
)
def test_a_body_that_is_too_large_is_refused_by_name(
    world: World, host: str, status: int, code: str, headers: str
) -> None:
    world.api.heads.clear()
    body = f"1E8480\r\n{'x' * 2_000_000}\r\n0\r\n\r\n" if "chunked" in headers else ""
    wrong = Wrong(line="POST /x HTTP/1.1", headers=headers, body=body)
    response = send(world, wrong, host, JSON)
    assert (response.status, code_of(response)) == (status, code)
    assert f"<small>{status}</small>" in send(world, wrong, host, HTML).body
    assert world.api.heads == []


@pytest.mark.parametrize(
    ("host", "status", "code"),
    [("page", 404, "not_found"), ("app", 404, "app_unknown"), ("unknown", 421, "host_refused")],
)
def test_our_own_files_cannot_be_asked_for(world: World, host: str, status: int, code: str) -> None:
    wrong = Wrong(line="GET /.spawn-pages/503.json HTTP/1.1")
    response = send(world, wrong, host, JSON)
    assert (response.status, code_of(response)) == (status, code)
    assert f"<small>{status}</small>" in send(world, wrong, host, HTML).body


def test_an_app_that_is_gone_or_silent_is_told_in_a_problem(world: World) -> None:
    host = world.host("a" * 16)
    gone = world.ask(host, headers={"Accept": JSON})
    assert (gone.status, code_of(gone)) == (404, "app_unknown")
    slug, app = world.publish_app()
    app.close()
    silent = world.ask(world.host(slug), headers={"Accept": JSON})
    assert (silent.status, code_of(silent)) == (502, "app_unavailable")
    page = world.ask(world.host(slug), headers={"Accept": HTML})
    assert (page.status, "<small>502</small>" in page.body) == (502, True)


def test_an_app_that_is_being_connected_is_told_in_a_problem() -> None:
    with running_world() as world:
        slug, _ = world.publish_app()
        (world.settings.folder / "routes" / "digest").unlink()  # as if the table can't be read
        program = world.ask(world.host(slug), headers={"Accept": JSON})
        browser = world.ask(world.host(slug), headers={"Accept": HTML})
    assert (program.status, code_of(program)) == (503, "app_connecting")
    assert (browser.status, "One moment" in browser.body) == (503, True)
    assert (program.headers["retry-after"], browser.headers["retry-after"]) == ("1", "1")


def test_a_browser_gets_a_page_while_no_process_of_the_api_answers() -> None:
    with running_world() as world:
        world.api.close()
        page = world.ask("localhost", headers={"Accept": HTML})
        problem = world.ask("localhost", "/api/templates", headers={"Accept": HTML})
        assert (page.status, page.headers["retry-after"]) == (503, "1")
        assert "SpawnAI is starting" in page.body
        assert (problem.status, code_of(problem)) == (503, "api_unavailable")


def test_an_answer_of_the_api_or_of_an_app_is_never_replaced(world: World) -> None:
    world.api.open(respond_with("its own", "405 Method Not Allowed", "Allow: GET"))
    slug, _ = world.publish_app(respond_with("its own", "501 Not Implemented"))
    answers = [
        world.ask(host, headers={"Accept": JSON}) for host in ("localhost", world.host(slug))
    ]
    assert [(answer.status, answer.body) for answer in answers] == [
        (405, "its own"),
        (501, "its own"),
    ]
    assert answers[0].headers["allow"] == "GET"


def test_a_body_that_stops_coming_ends_its_connection() -> None:
    """nginx answers nothing then: who has gone silent may take what follows for its own."""
    with altered_world("client_header_timeout 15s", "client_body_timeout 1s") as world:
        with world.connect() as client:
            client.sendall(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nab")
            with pytest.raises(ConnectionResetError):
                client.recv(1000)
        assert world.api.heads == []


def test_a_proxy_that_cannot_keep_a_body_says_so() -> None:
    with altered_world("client_body_buffer_size 128k", "client_body_buffer_size 1k") as world:
        shutil.rmtree(world.settings.folder / "temp" / "client_body")
        for accept, text in ((JSON, '"code":"internal"'), (HTML, "<small>500</small>")):
            headers = {"Accept": accept}
            answer = world.ask("localhost", "/x", "POST", body=bytes(9000), headers=headers)
            assert (answer.status, text in answer.body) == (500, True)


def test_who_takes_too_long_counts_as_unavailable() -> None:
    async def never(_: Head, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await reader.read()  # until nginx goes

    with altered_world("proxy_read_timeout 75s", "proxy_read_timeout 1s") as world:
        world.api.open(never)
        answer = world.ask("localhost", "/x", headers={"Accept": JSON})
        assert (answer.status, code_of(answer)) == (503, "api_unavailable")
    with altered_world("proxy_read_timeout 600s", "proxy_read_timeout 1s") as world:
        slug, _ = world.publish_app(never)
        answer = world.ask(world.host(slug), headers={"Accept": JSON})
        assert (answer.status, code_of(answer)) == (502, "app_unavailable")


@contextlib.contextmanager
def altered_world(old: str, new: str) -> Iterator[World]:
    """A running nginx with another setting, which no installation can choose."""
    with running_world(started=False) as world:
        config = world.settings.folder / "nginx.conf"
        text = config.read_text()
        assert old in text
        config.write_text(text.replace(old, new))
        world.start()
        yield world


def test_each_refusal_has_a_page_and_a_place_in_the_documentation() -> None:
    pages = (ROOT / "proxy" / "pages").glob("*[0-9].html.j2")
    elsewhere = {"page-503", "413"}  # see @api_unavailable, contract/uploads.py
    names = {refusal.name for refusal in REFUSALS} | elsewhere
    assert {page.name.removesuffix(".html.j2") for page in pages} == names
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    documented = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE))
    for refusal in REFUSALS:
        assert documented.get(refusal.code) == str(refusal.status), refusal.code
    for problem in map(json.loads, ClientLimits().problems().values()):
        assert documented.get(problem["code"]) == "429", problem["code"]
