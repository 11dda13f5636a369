"""The provider is broken: who needs no model notices nothing, and generations go on afterwards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.chaos import http_lies
from tests.chaos.conftest import TURNS, Scene, cells
from tests.chaos.people import memory_app
from tests.fakes.llm.messages_scripts import Drip, TextTurn

Fault = Callable[[Scene], AbstractContextManager[None]]

_STREAM = "text/event-stream"
_DELTA = {"type": "content_block_delta", "index": 7, "delta": {"type": "text_delta", "text": "?"}}


def a_page(_method: str, _path: str) -> bytes:
    return http_lies.page()


def missing_fields(_method: str, _path: str) -> bytes:
    return http_lies.answer({"type": "message", "content": None, "usage": None})


def wrong_order(_method: str, _path: str) -> bytes:
    """An event stream that begins in the middle, repeats itself and never says that it ends."""
    events = [_DELTA, {"type": "message_stop"}, _DELTA, {"type": "content_block_stop"}, {}]
    return http_lies.events(events)


def no_events(_method: str, _path: str) -> bytes:
    return http_lies.response("200 OK", _STREAM, b"data: {not json\n\nevent: \xff\n\ndata: []\n\n")


FAULTS: dict[str, Fault] = {
    "refuses": lambda scene: scene.provider.refusing(),
    "hangs": lambda scene: scene.provider.hanging(),
    "trickles": lambda scene: scene.provider.trickling(),
    "lies: a page": lambda scene: scene.provider.lying(a_page),
    "lies: missing fields": lambda scene: scene.provider.lying(missing_fields),
    "lies: events in a wrong order": lambda scene: scene.provider.lying(wrong_order),
    "lies: no events": lambda scene: scene.provider.lying(no_events),
}


SLOW = ("lies: missing fields", "lies: events in a wrong order", "lies: no events")


@pytest.mark.parametrize("fault", cells(FAULTS, slow=SLOW))
def test_others_notice_nothing_while_the_provider(scene: Scene, fault: str) -> None:
    prompt = f"A server for the day on which the provider {fault}"
    for _ in range(3):
        scene.model.play_for(prompt, *memory_app())
    with FAULTS[fault](scene):
        session_id = scene.victim.ask(prompt=prompt)
        scene.spawn.wait_for(session_id, "generating", "queued", "failed")
        scene.neighbour.check_newcomer()
    ended = scene.spawn.wait_for(session_id, "ready", "failed", within_s=120)
    if ended["status"] == "failed":
        assert ended["error"]["code"] in {"provider_unavailable", "generation_failed"}, ended
        session_id = scene.victim.get_app(prompt=f"{prompt}, again")
    scene.victim.end(session_id)


@pytest.mark.chaos
def test_another_user_gets_a_generated_app_while_one_holds_all_turns(scene: Scene) -> None:
    slow = "A page that takes its time"
    for _ in range(TURNS):
        turn = Drip(delay_s=1.0, turn=TextTurn(text="On and on and on. " * 500))
        scene.model.play_for(slow, turn)
    session_ids = [scene.victim.ask(prompt=f"{slow}, number {number}") for number in range(TURNS)]
    for session_id in session_ids:
        scene.spawn.wait_for(session_id, "generating")
    prompt = "A server for somebody else"
    scene.model.play_for(prompt, *memory_app())
    scene.neighbour.user.end(scene.neighbour.user.get_app(prompt=prompt))
    scene.victim.end(*session_ids)
