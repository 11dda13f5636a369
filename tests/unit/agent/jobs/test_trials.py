"""A version that replaces a running one is opened at its public address before; real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from agent.apps.app import App
from agent.failures import AssignmentFailed
from agent.home.client import HomeClient
from agent.home.reports import ReportSender
from agent.jobs.handover import Handover
from agent.jobs.job import Job
from agent.serving.site import Site, Slot
from agent.serving.stage import Stage

from orchestrator.contract import archive
from orchestrator.contract.health import Condition, Finding
from orchestrator.contract.manifest import AppKind, Manifest
from orchestrator.contract.wire import BundleRef, FailureCode
from tests.fakes.agents.home import FakeHome, assignment_to_start

PROBLEM = "GET / answers 404."


def start(home: FakeHome, folder: Path, *, beside: bool, unreached_limit_s: float = 20) -> App:
    """Start a bundle, beside a running app or not. Raises AssignmentFailed."""
    source = folder / "source"
    source.mkdir()
    (source / "spawn.json").write_text('{"kind": "static"}')
    (source / "index.html").write_text("app")
    home.bundle = archive.pack(str(source))

    async def run() -> App:
        async with asyncio.TaskGroup() as tasks:
            site = Site(slot=Slot(folder=str(folder / "shown"), port=1))
            stage = Stage(site, tasks, on_failure=lambda _: None)
            if beside:
                Path(site.slot.folder).mkdir()
                manifest = Manifest(kind=AppKind.STATIC, start=(), title="App")
                stage.app = App(manifest, site.slot, add_log=str, start_timeout_s=1)
            client = HomeClient(str(home.socket_path))
            digest = archive.sha256_hex(home.bundle)
            assignment = assignment_to_start(BundleRef(sha256=digest, size_bytes=len(home.bundle)))
            reports = ReportSender(client, assignment)
            job = Job(
                assignment,
                home=client,
                reports=reports,
                site=site,
                add_log=lambda _: None,
                unreached_limit_s=unreached_limit_s,
            )
            slot = Slot(folder=str(folder / "next"), port=2)
            result = await job.carry_out(slot, Handover(stage, site, add_log=lambda _: None))
            assert site.trial is None
            return result.app

    try:
        return asyncio.run(run())
    except* AssignmentFailed as group:
        raise group.exceptions[0] from None


def test_a_version_that_returns_over_a_running_one_is_opened_first(
    home: FakeHome, tmp_path: Path
) -> None:
    start(home, tmp_path, beside=True)
    assert len(home.trials) == 1


def test_one_that_visitors_find_unwell_does_not_replace_it(home: FakeHome, tmp_path: Path) -> None:
    home.walk = lambda _: Finding(condition=Condition.UNWELL, problem=PROBLEM)
    with pytest.raises(AssignmentFailed, match=PROBLEM) as failed:
        start(home, tmp_path, beside=True)
    assert failed.value.code is FailureCode.APP_NOT_HEALTHY


def test_one_that_nobody_gets_to_does_not_replace_it_either(home: FakeHome, tmp_path: Path) -> None:
    home.walk = lambda _: Finding(condition=Condition.UNREACHED, problem=PROBLEM)
    with pytest.raises(AssignmentFailed, match="could not be opened") as failed:
        start(home, tmp_path, beside=True, unreached_limit_s=0)
    assert failed.value.code is FailureCode.APP_NOT_READY


def test_what_is_out_of_reach_for_a_moment_is_opened_again(home: FakeHome, tmp_path: Path) -> None:
    well = Finding(condition=Condition.WELL)
    findings = [well, Finding(condition=Condition.UNREACHED, problem=PROBLEM)]
    home.walk = lambda _: findings.pop()
    start(home, tmp_path, beside=True)
    assert len(home.trials) == 2


def test_a_first_version_waits_for_no_trial(home: FakeHome, tmp_path: Path) -> None:
    start(home, tmp_path, beside=False)
    assert home.trials == []
