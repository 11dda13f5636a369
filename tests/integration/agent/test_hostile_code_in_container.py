"""Untrusted code in the model's commands and in apps: the limits stop it."""

from __future__ import annotations

import json

import pytest

from tests.fakes.agents.home import FakeHome, wait_for
from tests.fakes.llm.messages_api import MessagesApi
from tests.fakes.llm.messages_scripts import CallsTurn, ToolTurn
from tests.integration.agent.world import SERVER, Sandbox, bundle, python_app

PAGE = CallsTurn(
    calls=[
        ("write_file", {"path": "spawn.json", "content": '{"kind": "static"}'}),
        ("write_file", {"path": "index.html", "content": "still here"}),
    ]
)
FINISH = ToolTurn(name="finish", input={"summary": "Done."})
# They go on at the limit of processes. Otherwise the limit may end them before the agent counts.
BOMB = "import os\nwhile True:\n try: os.fork()\n except OSError: pass\n"
HIDDEN_BOMB = "import os\nwhile True:\n try: os.fork() or os.setsid()\n except OSError: pass\n"
ESCAPE = "import os,time\nif not os.fork():\n os.setsid()\n if not os.fork(): time.sleep(999)\n"


DEEP = 'import os\nfor _ in range(1500): os.mkdir("ddd"); os.chdir("ddd")\n'


def command(text: str, limit_s: float = 5) -> ToolTurn:
    return ToolTurn(name="run", input={"command": text, "limit_s": limit_s})


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("f(){ f|f & }; f", ""),
        (f"python3 -c '{BOMB}'", "more than 64 processes"),
        (f"python3 -c '{HIDDEN_BOMB}'", "more than 64"),
        ("python3 -c 'x = bytearray(900_000_000)'", "MemoryError"),
        ("node -e 'const a=[]; for (;;) a.push(Buffer.alloc(5e6, 1))'", "status"),
        ("yes", "didn't end within 5 s"),
        ("sleep 60", "didn't end within 5 s"),
        ("head -c 200M /dev/zero > /tmp/big", ""),
        (f"python3 -c '{ESCAPE}'; echo gone", "gone"),
        ("ln -s /etc/passwd index.html && mkfifo pipe && echo made", "made"),
        ("echo a\0b", "holds a NUL character"),
        ('echo \'{"event": "progress", "progress": []}\' | tee /proc/*/fd/1', "progress"),
    ],
)
def test_a_hostile_command_is_stopped_and_the_app_is_made_all_the_same(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi, text: str, output: str
) -> None:
    model.play(command(text), PAGE, FINISH)
    home.assign("g1", kind="generate", prompt="a page")
    home.wait_for_phase("ready", deadline_s=120)

    assert sandbox.get()[2] == "still here"
    result = model.requests[1].body["messages"][-1]["content"][0]["content"]
    assert output in result
    assert len(result) < 20_000
    commands = sandbox.commands()
    assert b"sleep" not in commands
    assert b"999" not in commands


def test_no_limit_of_a_command_ends_more_than_the_call(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi
) -> None:
    model.play(command("true", limit_s=10**400), PAGE, FINISH)
    home.assign("g1", kind="generate", prompt="a page")
    home.wait_for_phase("ready", deadline_s=120)

    assert "limit_s: is too large" in json.dumps(model.requests[1].body["messages"][-1])


@pytest.mark.parametrize(
    ("makes", "removes", "says"),
    [
        (f"python3 -c '{DEEP}'", "rm -rf ddd", "the folders are too deep"),
        ("mkdir no && touch no/x && chmod 444 no", "chmod 755 no", "'no/x': it can't be read"),
    ],
)
def test_a_folder_that_can_not_be_walked_is_named_and_the_work_goes_on(
    home: FakeHome, sandbox: Sandbox, model: MessagesApi, makes: str, removes: str, says: str
) -> None:
    model.play(command(makes), ToolTurn(name="list_files", input={}), PAGE, FINISH)
    model.play(command(removes), FINISH)
    home.assign("g1", kind="generate", prompt="a page")
    home.wait_for_phase("ready", deadline_s=120)

    assert sandbox.get()[2] == "still here"
    assert says in json.dumps(model.requests[4].body["messages"][-1])


APPS = {
    "fork bomb": """
        while True:
            try:
                os.fork()
            except OSError:
                pass
    """,
    "memory hog": """
        hoard = []
        while True:
            hoard.append(bytearray(10_000_000))
    """,
    "endless output": """
        threading.Thread(target=server.serve_forever).start()
        while True:
            print("x" * 1000)
    """,
}


@pytest.mark.parametrize("kind", ["fork bomb", "memory hog"])
def test_a_hostile_app_is_given_up_and_the_next_assignment_works(
    home: FakeHome, sandbox: Sandbox, kind: str
) -> None:
    one_request = "\n    server.handle_request()\n"
    source = SERVER + one_request + APPS[kind].replace("\n        ", "\n    ")
    home.assign("a1", bundle=python_app(source))
    home.wait_for_phase("ready")
    failed = home.wait_for_phase("failed", deadline_s=120)
    assert failed["error"]["code"] == "app_crashed"
    home.reports.clear()

    home.assign("a2", bundle=bundle({"kind": "static"}, {"index.html": "calm again"}))
    home.wait_for_phase("ready")
    assert sandbox.get()[2] == "calm again"
    wait_for("the end of the app", lambda: b"main.py" not in sandbox.commands())


def test_an_app_with_endless_output_still_answers_and_few_of_its_lines_are_sent(
    home: FakeHome, sandbox: Sandbox
) -> None:
    source = SERVER + APPS["endless output"].replace("\n        ", "\n    ")
    home.assign("a1", bundle=python_app(source))
    home.wait_for_phase("ready")

    assert all(sandbox.get()[2] == "alive" for _ in range(10))
    lines = sum(len(report["logs"]) for report in home.reports)
    assert lines <= 200 + 100 * 60
