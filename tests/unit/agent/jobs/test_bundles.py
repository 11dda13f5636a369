"""Where an agent gets the bundle that it starts: from its assignment, or else from home."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from agent.failures import AssignmentFailed
from agent.home.client import HomeClient
from agent.home.reports import ReportSender
from agent.jobs.job import Job
from agent.serving.site import Site, Slot

from orchestrator.contract import archive
from orchestrator.contract.wire import BundleRef, FailureCode
from tests.fakes.agents.home import FakeHome, assignment_to_start


@pytest.fixture
def packed(tmp_path: Path) -> bytes:
    source = tmp_path / "source"
    source.mkdir()
    (source / "spawn.json").write_text('{"kind": "static"}')
    (source / "index.html").write_text("app")
    return archive.pack(str(source))


def start(home: FakeHome, folder: Path, bundle: BundleRef) -> str:
    """Start this bundle. Returns the page that was unpacked. Raises AssignmentFailed."""
    assignment = assignment_to_start(bundle)

    async def run() -> None:
        client = HomeClient(str(home.socket_path))
        reports = ReportSender(client, assignment)
        slot = Slot(folder=str(folder / "app"), port=1)
        site = Site(slot=slot)
        job = Job(assignment, home=client, reports=reports, site=site, add_log=lambda _: None)
        await job.start_bundle(slot)

    asyncio.run(run())
    return (folder / "app" / "index.html").read_text()


def test_one_that_comes_with_its_assignment_is_not_fetched(
    home: FakeHome, tmp_path: Path, packed: bytes
) -> None:
    digest = archive.sha256_hex(packed)
    bundle = BundleRef(sha256=digest, size_bytes=len(packed), packed=packed)
    assert home.bundle == b"", "a fetch would bring nothing"
    assert start(home, tmp_path, bundle) == "app"


def test_any_other_is_fetched(home: FakeHome, tmp_path: Path, packed: bytes) -> None:
    home.bundle = packed
    bundle = BundleRef(sha256=archive.sha256_hex(packed), size_bytes=len(packed))
    assert start(home, tmp_path, bundle) == "app"


def test_one_that_is_not_what_the_assignment_names_is_not_started(
    home: FakeHome, tmp_path: Path, packed: bytes
) -> None:
    bundle = BundleRef(sha256="0" * 64, size_bytes=len(packed), packed=packed)
    with pytest.raises(AssignmentFailed) as failed:
        start(home, tmp_path, bundle)
    assert failed.value.code is FailureCode.BUNDLE_FETCH_FAILED
