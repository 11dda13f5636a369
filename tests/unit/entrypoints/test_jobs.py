"""A worker's heart beats as long as its job may take, and stops when even RQ can't end the job."""

from __future__ import annotations

from orchestrator.entrypoints import jobs


def test_a_worker_is_well_without_a_job_and_during_one_but_not_for_ever() -> None:
    job = jobs.Job()
    assert job.is_well()
    with job.timed():
        assert job.is_well()
        assert job.begun_at is not None
        job.begun_at -= jobs.JOB_LIMIT_S
        assert not job.is_well()
    assert job.is_well()
