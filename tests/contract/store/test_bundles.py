"""ports.BundleRecords: versions, written together with the session that they belong to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import errors, ids
from orchestrator.domain.sessions.bundles import BundleRecord, StorageLimits, Stored
from orchestrator.domain.sessions.session import Session, SessionState
from tests.contract.store.steps import add_session
from tests.fakes import samples
from tests.fakes.samples import NOW, later

ONE, TWO, THREE = (ids.Sha256(digit * 64) for digit in "123")
OTHER_USER = ids.UserId("usr_" + "z" * 26)


def keep(
    store: SqlStore, session: Session, limits: StorageLimits | None = None, **changes: Any
) -> BundleRecord:
    """Keep a version of a session as it is stored now."""
    record = samples.bundle_record(session_id=session.id, **changes)
    store.bundles.keep(record, store.sessions.get(session.id), limits)
    return record


def test_a_version_is_kept_together_with_its_session(store: SqlStore) -> None:
    session = add_session(store)
    record = samples.bundle_record(session_id=session.id, sha256=ONE)
    saved = store.bundles.keep(record, replace(session, bundle=ONE))
    assert store.sessions.get(session.id) == saved
    assert (saved.bundle, saved.revision) == (ONE, session.revision + 1)
    assert store.bundles.list(session.id) == [record]


def test_a_version_that_was_decided_for_an_earlier_revision_is_not_kept(store: SqlStore) -> None:
    session = add_session(store)
    ended = store.sessions.save(replace(session, state=SessionState.FAILED))
    with pytest.raises(errors.StaleWrite):
        store.bundles.keep(samples.bundle_record(session_id=session.id), session)
    assert store.bundles.list(session.id) == []
    assert store.sessions.get(session.id) == ended


def test_versions_are_listed_by_number(store: SqlStore) -> None:
    session = add_session(store)
    second = keep(store, session, version=2, title="Tr\u00e8s bien")
    first = keep(store, session, version=1, sha256=ONE)
    keep(store, add_session(store))
    assert store.bundles.list(session.id) == [first, second]
    assert store.bundles.list(ids.new_session_id()) == []


def test_keeping_a_version_again_writes_health_provider_and_summary_alone(
    store: SqlStore,
) -> None:
    session = add_session(store)
    record = keep(store, session, sha256=ONE)
    updated = replace(record, healthy=True, provider="cache", summary="A board.")
    current = store.sessions.get(session.id)
    current = store.bundles.keep(replace(updated, size_bytes=1, created_at=later(5)), current)
    assert store.bundles.list(session.id) == [updated]
    with pytest.raises(errors.Conflict):
        store.bundles.keep(replace(record, sha256=TWO), replace(current, bundle=TWO))
    assert store.bundles.list(session.id) == [updated]
    assert store.sessions.get(session.id) == current


def test_a_session_is_added_with_its_first_version_or_not_at_all(store: SqlStore) -> None:
    session = samples.session(bundle=ONE)
    record = samples.bundle_record(session_id=session.id, sha256=ONE)
    with pytest.raises(errors.LimitReached):
        store.sessions.add(session, None, max_active=0, version=record)
    assert store.bundles.list(session.id) == []
    store.sessions.add(session, None, max_active=1, version=record)
    assert store.bundles.list(session.id) == [record]


def test_equal_bytes_are_counted_once(store: SqlStore) -> None:
    mine, also_mine = add_session(store), add_session(store)
    other = add_session(store, user_id=OTHER_USER)
    keep(store, mine, version=1, sha256=ONE, size_bytes=10)
    keep(store, mine, version=2, sha256=TWO, size_bytes=5)
    keep(store, also_mine, sha256=ONE, size_bytes=10)
    keep(store, other, sha256=THREE, size_bytes=100)
    keep(store, other, version=2, sha256=ONE, size_bytes=10)
    assert store.bundles.stored(mine.id, mine.user_id) == Stored(
        versions=2, session_bytes=15, user_bytes=15, total_bytes=115
    )
    assert store.bundles.stored(ids.new_session_id(), OTHER_USER) == Stored(
        versions=0, session_bytes=0, user_bytes=110, total_bytes=115
    )


def test_a_version_without_room_is_refused_and_a_repetition_needs_none(store: SqlStore) -> None:
    session = add_session(store)
    keep(store, session, sha256=ONE, size_bytes=10)
    limits = StorageLimits(session_bytes=15)
    before = store.sessions.get(session.id)
    with pytest.raises(errors.TooLarge) as caught:
        keep(store, session, limits, version=2, sha256=TWO, size_bytes=6)
    assert (caught.value.code, caught.value.detail["scope"]) == ("storage_quota", "session")
    assert store.sessions.get(session.id) == before
    keep(store, session, StorageLimits(session_bytes=0), sha256=ONE, size_bytes=10)
    keep(store, session, limits, version=2, sha256=TWO, size_bytes=5)
    assert len(store.bundles.list(session.id)) == 2


def test_of_the_drafts_of_a_session_the_latest_stay(store: SqlStore) -> None:
    session, other = add_session(store), add_session(store)
    keep(store, other, healthy=False)
    for version in range(1, 6):
        digest = ids.Sha256(str(version) * 64)
        limits = StorageLimits(drafts=2)
        keep(store, session, limits, version=version, sha256=digest, healthy=version == 2)
    assert [record.version for record in store.bundles.list(session.id)] == [2, 4, 5]
    assert len(store.bundles.list(other.id)) == 1


def test_retention_starts_once_and_with_the_end_of_the_session(store: SqlStore) -> None:
    session, other = add_session(store), add_session(store)
    first = keep(store, session, version=1, delete_after=later(5))
    second = keep(store, session, version=2, sha256=TWO)
    kept = keep(store, other)
    current = store.sessions.get(session.id)
    with pytest.raises(errors.StaleWrite):
        store.bundles.retire(replace(current, revision=0), later(60))
    assert store.bundles.list(session.id) == [first, second]
    ended = store.bundles.retire(replace(current, state=SessionState.FAILED), later(60))
    assert store.sessions.get(session.id) == ended
    store.bundles.retire(ended, later(90))
    assert store.bundles.list(session.id) == [first, replace(second, delete_after=later(60))]
    assert store.bundles.list(other.id) == [kept]


def test_versions_are_pruned_once_their_time_is_up(store: SqlStore) -> None:
    sessions = [add_session(store) for _ in range(4)]
    for session, delete_after in zip(sessions, (NOW, later(5), later(-5), None), strict=True):
        keep(store, session, delete_after=delete_after)
    assert store.bundles.prune(later(-9)) == 0
    assert store.bundles.prune(NOW) == 2
    assert [len(store.bundles.list(session.id)) for session in sessions] == [0, 1, 0, 1]
    assert store.bundles.prune(later(5)) == 1
    assert store.bundles.prune(later(5)) == 0


def test_a_version_that_a_live_session_starts_from_is_not_pruned(store: SqlStore) -> None:
    old = add_session(store)
    keep(store, old, sha256=ONE, delete_after=NOW)
    live = add_session(store, bundle=ONE)
    assert store.bundles.prune(NOW) == 0
    store.sessions.save(replace(live, state=SessionState.FAILED))
    assert store.bundles.prune(NOW) == 1


def test_a_digest_is_named_by_records_and_by_live_sessions(store: SqlStore) -> None:
    keep(store, add_session(store), sha256=ONE)
    live = add_session(store, bundle=TWO)
    assert set(store.bundles.unnamed([ONE, TWO, THREE])) == {THREE}
    store.sessions.save(replace(live, state=SessionState.DESTROYED))
    assert set(store.bundles.unnamed([ONE, TWO, THREE])) == {TWO, THREE}
    assert list(store.bundles.unnamed([])) == []


def test_digests_are_read_page_by_page(store: SqlStore) -> None:
    for digest in (THREE, ONE, TWO, ONE):
        keep(store, add_session(store), sha256=digest)
    assert store.bundles.digests("", 2) == [ONE, TWO]
    assert store.bundles.digests(TWO, 2) == [THREE]
    assert store.bundles.digests(THREE, 2) == []
