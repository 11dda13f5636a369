"""The workshop answers, whatever the app's files and the model's commands are."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from agent.apps.app import App
from agent.home.client import HomeClient
from agent.jobs.handover import Handover
from agent.jobs.messages import BODY_MAX_BYTES, Get, Question, Run, Start
from agent.jobs.trials import PublicAddress
from agent.jobs.workshop import ANSWER_MAX_BYTES, Workshop
from agent.serving.site import Site, Slot
from agent.serving.stage import Stage
from agent.serving.static_files import open_file

from orchestrator.contract.manifest import AppKind, Manifest
from orchestrator.contract.wire import Limits


class Shop:
    """A workshop with a static app in its work folder, and questions to it."""

    def __init__(self, folder: Path) -> None:
        self.work, self.slot, self.home = folder / "work", folder / "slot", folder / "home"
        self.work.mkdir()
        (self.work / "spawn.json").write_text('{"kind": "static"}')
        (self.work / "index.html").write_text("app")
        self.limits = Limits(run_seconds=20)
        self.current: App | None = None

    def ask(self, *questions: Question) -> dict[str, Any]:
        """The answer to the last question."""

        async def run() -> dict[str, Any]:
            async with asyncio.TaskGroup() as tasks:
                workshop = Workshop(
                    Slot(folder=str(self.slot), port=1),
                    limits=self.limits,
                    start_timeout_s=20,
                    add_log=lambda _: None,
                    public_address=PublicAddress(HomeClient(str(self.home)), Site(), "token"),
                    handover=self.handover(tasks),
                    folder=str(self.work),
                )
                for question in questions[:-1]:
                    await workshop.answer(question)
                return await workshop.answer(questions[-1])

        return asyncio.run(run())

    def handover(self, tasks: asyncio.TaskGroup) -> Handover | None:
        if self.current is None:
            return None
        site = Site(slot=self.current.slot)
        stage = Stage(site, tasks, on_failure=lambda _: None)
        stage.app = self.current
        return Handover(stage, site, add_log=lambda _: None)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.mark.parametrize("word", ["a\0b", "\ud800"])
def test_a_command_that_no_program_can_get_is_not_started_and_leaves_no_pipe_open(
    shop: Shop, word: str
) -> None:
    before = open_files()
    answer = shop.ask(Run(command=("/bin/sh", "-c", word), limit_s=5))

    assert answer["ended"].startswith("can't be started: ")
    assert answer["status"] is None
    assert open_files() == before


def test_a_limit_beyond_all_others_is_the_one_of_the_assignment(shop: Shop) -> None:
    assert shop.ask(Run(command=("/bin/sh", "-c", "echo hi"), limit_s=2**53))["output"] == "hi"


@pytest.mark.parametrize(("run_seconds", "limit_s"), [(0.25, 2**53), (20, 0.25)])
def test_a_command_ends_at_the_lower_one_of_both_limits(
    shop: Shop, run_seconds: float, limit_s: float
) -> None:
    shop.limits = Limits(run_seconds=run_seconds)
    answer = shop.ask(Run(command=("/bin/sleep", "60"), limit_s=limit_s))

    assert answer["ended"] == "was stopped: it didn't end within 0.25 s"


def test_files_that_are_no_app_are_said_to_be_none(shop: Shop) -> None:
    (shop.work / "spawn.json").write_text("{")

    assert "not JSON" in shop.ask(Start())["invalid"]
    assert shop.ask(Get(paths=("/",), max_bytes=5, navigates=True)) == {
        "ended": "was not started",
        "console": "",
        "pages": [],
    }


def test_the_next_version_gets_the_files_of_the_current_one_or_says_why_not(
    shop: Shop, tmp_path: Path
) -> None:
    serving = tmp_path / "serving"
    (serving / "data").mkdir(parents=True)
    shop.current = App(
        Manifest(kind=AppKind.STATIC, start=(), title="App"),
        Slot(folder=str(serving), port=2),
        add_log=lambda _: None,
        start_timeout_s=20,
    )
    (serving / "data" / "made.txt").write_text("made")
    assert shop.ask(Start())["problem"] == ""
    assert (shop.slot / "data" / "made.txt").read_text() == "made"
    (shop.work / "data").write_text("no folder")

    assert shop.ask(Start())["problem"].startswith("can't get the data of the version before: ")


def test_a_file_that_became_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    before = open_files()
    with pytest.raises(OSError, match="not a plain file"):
        open_file(str(tmp_path / "pipe"))
    assert open_files() == before


def test_an_answer_has_a_bound_for_all_of_its_pages_together(shop: Shop) -> None:
    for number in range(8):
        (shop.work / f"{number}.png").write_bytes(b"\xff" * BODY_MAX_BYTES)
    paths = tuple(f"/{number}.png" for number in range(8))
    answer = shop.ask(Start(), Get(paths=paths, max_bytes=BODY_MAX_BYTES, navigates=False))

    assert [page["status"] for page in answer["pages"]] == [200] * 8
    assert sum(len(page["body"]) for page in answer["pages"]) == ANSWER_MAX_BYTES
