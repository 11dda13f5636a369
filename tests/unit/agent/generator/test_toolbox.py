"""Tool calls and health: what the model is told, whatever it sends."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from agent.failures import AssignmentFailed
from agent.generator.channel import Channel
from agent.generator.checker import Checker
from agent.generator.progress import Progress
from agent.generator.reply import Call
from agent.generator.toolbox import Result, Toolbox
from agent.generator.tools import TOOLS
from agent.generator.workspace import Workspace

from orchestrator.contract.wire import Limits
from tests.fakes.agents.agent import FakeAgent

STATIC = '{"kind": "static"}'


class Bench:
    """A toolbox over a folder, with the agent's end in view."""

    def __init__(self, folder: Path) -> None:
        self.agent = FakeAgent(folder)
        self.messages: list[str] = []
        progress = Progress(
            expected_tokens=100, on_change=lambda _, message: self.messages.append(message)
        )
        workspace = Workspace(str(folder), Limits())
        checker = Checker(self.agent, progress)
        self.toolbox = Toolbox(workspace, checker, self.agent, progress, Limits())

    def call(self, name: str, **arguments: Any) -> Result:
        return self.toolbox.carry_out(Call(id="t", name=name, input=arguments))

    def write(self, **files: str) -> None:
        for name, content in {"spawn_json": STATIC, **files}.items():
            self.call("write_file", path=name.replace("_", "."), content=content)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_every_tool_that_the_model_is_told_of_exists_and_no_other(bench: Bench) -> None:
    told = [tool["name"] for tool in TOOLS]
    unknown = bench.call("teleport")

    assert unknown.error
    assert unknown.text == f"There is no tool teleport. There are: {', '.join(told)}."


@pytest.mark.parametrize("tool", [tool["name"] for tool in TOOLS])
def test_no_input_however_wrong_does_more_than_get_an_answer(bench: Bench, tool: str) -> None:
    wrong: list[Any] = [None, 5, "", [], {}, ["/", 5], "x" * 1000, True, -1]
    names = ("path", "content", "old_text", "new_text", "command", "limit_s", "paths", "summary")
    for value in wrong:
        assert bench.call(tool, **dict.fromkeys(names, value)).text
    assert bench.toolbox.carry_out(Call(id="t", name=tool, input=None)).error
    assert bench.call(tool).text


def test_a_healthy_app_is_finished_and_is_not_started_twice(bench: Bench) -> None:
    bench.write(index_html="<link rel=stylesheet href=s.css>", s_css="a{b:url(i.png)}", i_png="x")
    assert not bench.call("start_app").error
    result = bench.call("finish", summary="Done.")

    assert result.summary == "Done."
    assert [question["ask"] for question in bench.agent.questions].count("start") == 1
    assert bench.messages[-3:] == ["starting", "checking /", "opening it at its public address"]


def test_an_app_that_visitors_find_unwell_is_not_finished_and_counts_as_a_failed_check(
    bench: Bench,
) -> None:
    bench.write(index_html="app")
    bench.agent.public_problems = ["GET / answers 400."]
    result = bench.call("finish", summary="Done.")
    assert result.summary is None
    assert "At its public address" in result.health_problem
    assert "GET / answers 400." in result.text

    assert bench.call("finish", summary="Done.").summary == "Done."


def test_a_file_that_changed_after_the_check_makes_a_new_start_necessary(bench: Bench) -> None:
    bench.write(index_html="one")
    bench.call("start_app")
    bench.call("edit_file", path="index.html", old_text="one", new_text="two")

    assert not bench.toolbox.healthy
    assert bench.call("finish", summary="Done.").summary == "Done."
    assert [question["ask"] for question in bench.agent.questions].count("start") == 2


def test_a_missing_asset_of_a_page_or_sheet_is_bad_health(bench: Bench) -> None:
    bench.write(index_html="<script src=a.js></script><link rel=stylesheet href=s.css>")
    result = bench.call("finish", summary="Done.")
    assert "/a.js, which / needs, answers 404. /s.css, which / needs, answers 404." in result.text
    bench.write(index_html="<link rel=stylesheet href=s.css>", s_css="a{b:url(i.png)}")
    result = bench.call("finish", summary="Done.")

    assert result.error
    assert result.summary is None
    assert result.health_problem == "/i.png, which /s.css needs, answers 404."


def test_a_crash_is_told_by_its_exception_with_the_last_lines(bench: Bench) -> None:
    bench.write(index_html="x")
    bench.agent.problems = ["exited with status 1 before it answered"]
    bench.agent.console = "Traceback (most recent call last):\nValueError: no\n"
    result = bench.call("start_app")

    assert result.health_problem.startswith("ValueError: no (The app exited with status 1")
    assert "Traceback" in result.text
    assert not bench.toolbox.healthy


def test_files_that_are_no_app_yet_say_nothing_about_its_health(bench: Bench) -> None:
    result = bench.call("start_app")

    assert result.error
    assert result.health_problem == ""
    assert "there is no spawn.json" in result.text


def test_a_check_shows_status_type_body_and_log(bench: Bench) -> None:
    assert "start_app first" in bench.call("check_app", paths=["/"]).text
    bench.write(index_html="hello")
    bench.call("start_app")
    bench.agent.console = "GET /"
    text = bench.call("check_app", paths=["/", "/gone"]).text

    assert "GET / -> 200\ncontent-type: text/html\n\nhello" in text
    assert "GET /gone -> 404" in text
    assert text.endswith("Log:\nGET /")


@pytest.mark.parametrize(
    "paths",
    [["index.html"], ["/a b"], ["/\r\nX:y"], ["/ü"], ["http://elsewhere/"], ["/", 5], "/", None],
)
def test_what_is_no_path_is_not_asked_for(bench: Bench, paths: object) -> None:
    assert "each beginning with a slash" in bench.call("check_app", paths=paths).text
    assert not bench.agent.questions


def test_a_check_asks_for_ten_paths_at_most_and_for_the_first_page_if_none_is_named(
    bench: Bench,
) -> None:
    bench.call("check_app", paths=[f"/{number}" for number in range(11)])
    bench.call("check_app", paths=[])
    many, none = (question["paths"] for question in bench.agent.questions)

    assert many == [f"/{number}" for number in range(10)]
    assert none == ["/"]


def test_a_check_shows_few_headers_and_why_a_page_has_no_answer(bench: Bench) -> None:
    bench.write(index_html="hello")
    bench.call("start_app")
    headers = {"content-type": "text/html", "x-any": "x" * 9000}
    bench.agent.pages["/"] = {"headers": headers}
    assert "x-any" not in bench.call("check_app", paths=["/"]).text
    bench.agent.pages["/"] = {"problem": "no whole answer within 10 s"}
    bench.agent.ended = "exited with status 1"
    result = bench.call("check_app", paths=["/"])

    assert result.error
    assert (
        "GET / fails: no whole answer within 10 s\n\nThe app exited with status 1." in result.text
    )


@pytest.mark.parametrize("limit_s", [0, -1, True, "5", [], None])
def test_a_limit_that_is_no_time_is_refused_before_the_command_runs(
    bench: Bench, limit_s: object
) -> None:
    assert "must be a positive number" in bench.call("run", command="ls", limit_s=limit_s).text
    assert not bench.agent.questions


def test_progress_names_what_is_done_but_not_at_any_length(bench: Bench) -> None:
    long = "x" * 5000
    bench.call("write_file", path=long, content="x")
    bench.call("edit_file", path=long, old_text="x", new_text="y")
    bench.call("run", command=long)
    bench.call("check_app", paths=["/" + long])

    assert [message[:11] for message in bench.messages] == [
        "writing xxx",
        "editing xxx",
        "running xxx",
        "checking /x",
    ]
    assert max(map(len, bench.messages)) == 150


def test_a_file_is_read_and_deleted(bench: Bench) -> None:
    bench.write(a_txt="one", b_txt="")
    assert bench.call("read_file", path="a.txt").text == "one"
    assert bench.call("read_file", path="b.txt").text == "(empty)"
    bench.call("delete_file", path="a.txt")

    assert "no file a.txt" in bench.call("read_file", path="a.txt").text


def test_a_command_is_run_by_a_shell_and_what_it_says_is_shown(bench: Bench) -> None:
    bench.agent.command_result = {
        "ended": "exited with status 2",
        "status": 2,
        "output": "no such file",
    }
    result = bench.call("run", command="ls nowhere", limit_s=5)

    assert result.text == "The command exited with status 2.\nno such file"
    assert bench.agent.questions[-1]["command"] == ["/bin/sh", "-c", "ls nowhere"]


def test_an_agent_that_hangs_up_ends_the_generation() -> None:
    with pytest.raises(AssignmentFailed, match="the agent hung up"):
        Channel(io.StringIO(), io.StringIO()).ask("start")


def test_a_question_that_the_agent_refuses_is_an_answer_to_the_model(tmp_path: Path) -> None:
    outgoing = io.StringIO()
    channel = Channel(io.StringIO('{"refused": "command: holds a NUL character"}\n'), outgoing)
    progress = Progress(expected_tokens=100, on_change=lambda _, __: None)
    workspace = Workspace(str(tmp_path), Limits())
    toolbox = Toolbox(workspace, Checker(channel, progress), channel, progress, Limits())

    result = toolbox.carry_out(Call(id="t", name="run", input={"command": "a\0b"}))
    assert result == Result(text="command: holds a NUL character", error=True)
    result = toolbox.carry_out(Call(id="t", name="run", input={"command": "x" * 200_000}))
    assert "characters at most" in result.text
    assert outgoing.getvalue().count("\n") == 1
