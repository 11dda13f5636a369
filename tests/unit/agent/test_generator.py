"""The generator's conversation, with the real SDK and a scripted model on a UNIX socket."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from agent import generator
from agent.generator_input import Order
from agent.generator_output import FilesInvalid, StreamProgress, parse_tool_input
from agent.protocol import AssignmentFailed

from tests.fakes.fake_home import (
    SESSION_TOKEN,
    FakeHome,
    ModelAnswer,
    model_error,
    plain_text,
    tool_call,
)

PAGE: dict[str, Any] = {
    "manifest": {"kind": "static", "title": "Page", "start": []},
    "files": [{"path": "index.html", "content": "<h1>hello</h1>"}],
}


@pytest.fixture
def home() -> Iterator[FakeHome]:
    folder = Path(tempfile.mkdtemp(prefix="home-"))  # a socket's path must be short
    with FakeHome(folder) as made:
        yield made
    shutil.rmtree(folder)


@pytest.fixture
def order(home: FakeHome, tmp_path: Path) -> Order:
    return Order(
        socket=str(home.socket_path),
        folder=str(tmp_path),
        token=SESSION_TOKEN,
        prompt="a page",
        model="model",
        max_tokens=1000,
    )


def outcome(order: Order) -> str:
    """The title of the app, or the failure's code."""
    try:
        return generator.converse(order).manifest.title
    except AssignmentFailed as failure:
        return str(failure.code)


def test_an_unusable_answer_is_sent_back_with_the_reason_once(home: FakeHome, order: Order) -> None:
    outside = {**PAGE, "files": [{"path": "../index.html", "content": "x"}]}
    home.model_script = [tool_call(outside), tool_call(PAGE)]

    assert outcome(order) == "Page"
    _, answered, corrected = home.model_requests[1]["messages"]
    assert answered["content"][0]["input"] == outside
    result = corrected["content"][0]
    assert (result["type"], result["is_error"]) == ("tool_result", True)
    assert "'..' is not allowed" in result["content"]


@pytest.mark.parametrize(
    "useless",
    [tool_call('{"manifest": {'), tool_call({}), plain_text("What colour should it have?")],
)
def test_two_unusable_answers_end_the_generation(
    home: FakeHome, order: Order, useless: ModelAnswer
) -> None:
    home.model_script = [useless, useless]

    assert outcome(order) == "generation_failed"
    assert len(home.model_requests) == 2


def test_a_model_that_refuses_forced_tools_is_asked_without_force(
    home: FakeHome, order: Order
) -> None:
    message = 'tool_choice: type "tool" and "any" are not supported for this model.'
    home.model_script = [model_error(400, "invalid_request_error", message), tool_call(PAGE)]

    assert outcome(order) == "Page"
    assert [asked["tool_choice"]["type"] for asked in home.model_requests] == ["tool", "auto"]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (plain_text("{", stop_reason="max_tokens"), "generation_failed"),
        (plain_text("I'd rather not", stop_reason="refusal"), "refused"),
        (model_error(401, "authentication_error", "bad key"), "provider_auth"),
        (model_error(403, "permission_error", "not yours"), "provider_auth"),
        (model_error(400, "invalid_request_error", "prompt too long"), "generation_failed"),
        (ModelAnswer(events=plain_text("cut off").events[:-2]), "provider_unavailable"),
        (
            ModelAnswer(
                events=[{"type": "error", "error": {"type": "overloaded_error", "message": "x"}}]
            ),
            "provider_unavailable",
        ),
    ],
)
def test_each_way_to_fail_has_its_code(
    home: FakeHome, order: Order, answer: ModelAnswer, code: str
) -> None:
    home.model_script = [answer]

    assert outcome(order) == code
    assert len(home.model_requests) == 1


def test_an_overloaded_provider_is_tried_three_times_in_all(home: FakeHome, order: Order) -> None:
    home.model_script = [model_error(529, "overloaded_error", "busy")] * 3

    assert outcome(order) == "provider_unavailable"
    assert len(home.model_requests) == 3


# httpcore2 leaves the socket of a failed connect to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_home_that_is_away_is_a_provider_that_is_unavailable(order: Order) -> None:
    assert outcome(replace(order, socket="/nowhere.sock")) == "provider_unavailable"


def test_existing_files_stay_and_count_for_the_new_app(
    home: FakeHome, order: Order, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("<p>first</p>")
    more = {**PAGE, "files": [{"path": "more.html", "content": "x"}]}
    home.model_script = [tool_call(more)]

    assert outcome(order) == "Page"
    assert "<p>first</p>" in home.model_requests[0]["messages"][0]["content"]


def test_progress_grows_with_the_stream_and_names_the_file() -> None:
    progress = StreamProgress()
    text = json.dumps({**PAGE, "files": [{"path": "app.py", "content": '"path": "no"' * 9000}]})
    steps = [progress.feed(text[start : start + 50]) for start in range(0, len(text), 50)]

    percents = [percent for percent, _ in steps]
    assert percents == sorted(percents)
    assert percents[0] == 31
    assert 80 < percents[-1] <= 89
    assert {message for _, message in steps} == {"designing the app", "writing app.py"}


@pytest.mark.parametrize(
    "files",
    [
        [],
        "index.html",
        [{"path": "index.html"}],
        [{"path": "/index.html", "content": ""}],
        [{"path": "a/../../index.html", "content": ""}],
        [{"path": "index.html", "content": ""}, {"path": "./index.html", "content": ""}],
        [{"path": "index.html", "content": ""}, {"path": "index.html/a", "content": ""}],
        [{"path": "other.html", "content": ""}],
    ],
)
def test_files_that_could_not_be_an_app_are_refused(files: object) -> None:
    with pytest.raises(FilesInvalid):
        parse_tool_input({**PAGE, "files": files}, [])


def test_nested_json_in_a_text_is_understood() -> None:
    text = {"manifest": json.dumps(PAGE["manifest"]), "files": json.dumps(PAGE["files"])}

    assert parse_tool_input(text, []).files == {"index.html": b"<h1>hello</h1>"}
