"""What the front makes of an app's answer, over real sockets: always one answer, with an end."""

from __future__ import annotations

import pytest
from agent.serving.site import Site, Slot

from orchestrator.contract.heads import HEAD_MAX_BYTES, HEAD_ROOM_BYTES
from tests.unit.agent.serving.test_front import exchange

FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
CLOSE = b"Connection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + CLOSE + b"hello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + CLOSE


def ask(answer: bytes, head: bytes = b"", method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    """What the client gets if the app answers its request so."""
    site = Site(slot=Slot(folder="/nowhere", port=1))
    site.answer_to("mine")
    raw = method + b" / HTTP/" + version + b"\r\nHost: mine\r\n" + head + b"\r\n"
    received, _ = exchange(site, raw, lambda _: answer, until=b"\r\n\r\n")
    return received


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    ],
)
def test_interim_answers_are_dropped(interim: bytes) -> None:
    assert ask(interim + OK) == OK


def test_a_client_that_waits_to_be_told_to_continue_is_told_once() -> None:
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    expecting = b"Expect: 100-continue\r\nContent-Length: 5\r\n"
    assert ask(go_on + go_on + OK, expecting, b"POST") == go_on + OK


def test_what_follows_an_answer_is_dropped() -> None:
    for method, status, headers, received in (
        (b"GET", b"200 OK", b"Content-Length: 5\r\n", b"hello"),
        (b"HEAD", b"200 OK", b"Content-Length: 5\r\n", b""),
        (b"GET", b"304 Not Modified", b"ETag: x\r\n", b""),
        (b"GET", b"204 No Content", b"", b""),
    ):
        answer = b"HTTP/1.1 " + status + b"\r\n" + headers + CLOSE + received
        assert ask(answer + FORGED, method=method) == answer


def test_an_answer_without_a_length_is_sent_in_chunks() -> None:
    unframed = b"HTTP/1.1 200 OK\r\n\r\nhello"
    assert ask(unframed) == CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"
    assert ask(unframed, version=b"1.0") == b"HTTP/1.1 200 OK\r\n" + CLOSE + b"hello"


def test_what_concerns_one_connection_alone_ends_here() -> None:
    start = b"HTTP/1.1 200 OK\r\nX-Bar: kept\r\n"
    ended = (
        b"Connection: X-Foo, close\r\nX-Foo: 1\r\nconnection: x-Baz\r\nX-BAZ: 2\r\n"
        b"Keep-Alive: timeout=5\r\nUpgrade: h2c\r\nProxy-Connection: close\r\n"
        b"Proxy-Authenticate: Basic\r\nProxy-Authentication-Info: x\r\n"
    )
    end = b"Content-Length: 5\r\n" + CLOSE + b"hello"
    assert ask(start + ended + b"Content-Length: 5\r\n\r\nhello") == start + end


@pytest.mark.parametrize("name", [b"X_Accel_Redirect", b"x-accel.redirect", b"X_Spawn_Page"])
def test_what_steers_a_proxy_ends_here_however_it_is_spelled(name: bytes) -> None:
    assert ask(OK.replace(b"\r\n", b"\r\n" + name + b": /x\r\n", 1)) == OK


def test_of_two_framings_the_client_gets_the_one_that_was_read() -> None:
    both = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"5\r\nhello\r\n0\r\n\r\n"
    assert ask(both + body + FORGED) == CHUNKED + body


@pytest.mark.parametrize("request_head", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"])
def test_a_switch_that_nobody_asked_for_gives_502(request_head: bytes) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    received = ask(switch + FORGED, request_head)

    assert received.startswith(b"HTTP/1.1 502 ")
    assert b"forged" not in received


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/0.9 what\r\n\r\n",
        b"garbage" * 1000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ],
)
def test_what_is_no_answer_gives_502(answer: bytes) -> None:
    assert ask(answer).startswith(b"HTTP/1.1 502 ")


def test_an_answer_that_breaks_off_has_no_end_for_the_client_either() -> None:
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    for rest in (b"zz\r\n" + FORGED, b"5\r\nhel"):
        received = ask(chunks + rest)
        assert received.startswith(CHUNKED)
        assert b"hello" in received
        assert not received.endswith(b"0\r\n\r\n")
        assert b"forged" not in received


def test_a_head_may_have_64_kib_and_a_larger_one_is_named() -> None:
    start, end = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ", b"\r\n" + CLOSE
    longest = b"x" * (HEAD_MAX_BYTES - len(start) - len(end))

    assert ask(start + longest + end).startswith(b"HTTP/1.1 200 ")
    received = ask(start + longest + b"x" + end)
    assert received.startswith(b"HTTP/1.1 502 ")
    assert b"64 KiB" in received


def test_a_request_head_may_have_64_kib_and_what_the_proxy_adds() -> None:
    start, end = b"GET / HTTP/1.1\r\nHost: mine\r\nX: ", b"\r\n\r\n"
    longest = b"x" * (HEAD_MAX_BYTES + HEAD_ROOM_BYTES - len(start) - len(end))

    assert ask(OK, b"X: " + longest + b"\r\n") == OK
    received = ask(OK, b"X: " + longest + b"x\r\n")
    assert received.startswith(b"HTTP/1.1 431 ")
    assert b"64 KiB" in received
