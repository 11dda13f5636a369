"""ports.Changes: a change and the session that counts it are written together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import errors, ids
from orchestrator.domain.sessions.change_turns import Turns
from orchestrator.domain.sessions.changes import KEPT_MAX, Change
from orchestrator.domain.sessions.session import Failure, Session
from tests.contract.store.steps import add_session
from tests.fakes.samples import NOW, bundle_record, later


def change_of(session: Session, number: int = 1, text: str = "plus bleu \0 !") -> Change:
    return Change(session_id=session.id, number=number, text=text, restores=None, created_at=NOW)


def add_change(store: SqlStore, session: Session, key: str | None = None) -> tuple[Change, Session]:
    turns = replace(session.turns, requested=session.turns.requested + 1)
    change = change_of(session, turns.requested)
    return change, store.changes.add(change, replace(session, turns=turns), key)


def test_a_change_is_kept_with_the_session_that_counts_it(store: SqlStore) -> None:
    session = add_session(store)
    change, saved = add_change(store, session)
    assert saved.revision == session.revision + 1
    assert store.sessions.get(session.id) == saved
    assert saved.turns == Turns(requested=1)
    stored = replace(change, text="plus bleu \ufffd !")
    assert store.changes.get(session.id, 1) == stored
    assert store.changes.list(session.id) == [stored]


def test_of_two_changes_with_the_same_number_the_second_is_stale(store: SqlStore) -> None:
    session = add_session(store)
    _, saved = add_change(store, session)
    with pytest.raises(errors.StaleWrite):
        add_change(store, session)
    assert len(store.changes.list(session.id)) == 1
    add_change(store, saved)
    assert [change.number for change in store.changes.list(session.id)] == [1, 2]


def test_a_users_apps_get_no_more_changes_a_minute_than_the_rate(store: SqlStore) -> None:
    first, second = add_session(store), add_session(store)
    stranger = add_session(store, user_id=ids.new_user_id())

    def change(session: Session, seconds: float) -> None:
        session = store.sessions.get(session.id)
        number = session.turns.requested + 1
        wanted = replace(change_of(session, number), created_at=later(seconds))
        counted = replace(
            session, turns=replace(session.turns, requested=number), updated_at=later(seconds)
        )
        store.changes.add(wanted, counted, None, max_per_minute=2)

    change(first, 0)
    change(second, 20)
    for session in (first, second):
        with pytest.raises(errors.LimitReached) as caught:
            change(session, 45.5)
        assert (caught.value.code, caught.value.detail["limit"]) == ("too_many_changes", 2)
        assert caught.value.retry_after_s == 15
        assert store.sessions.get(session.id).turns.requested == 1
    change(stranger, 45.5)
    change(first, 60)
    with pytest.raises(errors.LimitReached):
        change(first, 79)
    change(first, 80)
    with pytest.raises(errors.LimitReached):
        change(second, 81)


def test_a_session_keeps_its_last_changes_and_those_that_made_its_versions(
    store: SqlStore,
) -> None:
    session = add_session(store)
    for _ in range(3):
        _, session = add_change(store, session)
    version = bundle_record(session_id=session.id, version=2, change=2)
    session = store.bundles.keep(version, session)
    last = replace(session.turns, requested=KEPT_MAX + 1)
    _, session = add_change(store, replace(session, turns=last))
    assert [change.number for change in store.changes.list(session.id)] == [2, 3, KEPT_MAX + 2]


def test_changes_are_listed_from_the_latest_back(store: SqlStore) -> None:
    session = add_session(store)
    for _ in range(4):
        _, session = add_change(store, session)

    def listed(**options: int) -> list[int]:
        return [change.number for change in store.changes.list(session.id, **options)]

    assert listed(limit=2) == [3, 4]
    assert listed(limit=2, before=3) == [1, 2]
    assert listed(before=2) == [1]
    assert listed(before=1) == []


def test_a_change_is_found_by_the_key_of_its_request_within_its_session(store: SqlStore) -> None:
    session, other = add_session(store), add_session(store)
    add_change(store, session, "key")
    add_change(store, other, "key")
    change = store.changes.find(session.id, "key")
    assert change is not None
    assert (change.session_id, change.number) == (session.id, 1)
    assert store.changes.find(session.id, "another") is None


def test_the_end_of_a_change_is_written_with_its_session(store: SqlStore) -> None:
    session = add_session(store)
    change, saved = add_change(store, session)
    failure = Failure(code="refused", message="non", permanent=False)
    ended = replace(change, ended_at=later(9), version=2, summary="fait", failure=failure)
    ready = replace(saved, turns=saved.turns.start_next().finish_next(), version=2)
    with pytest.raises(errors.StaleWrite):
        store.changes.conclude(ended, replace(ready, revision=session.revision))
    assert store.changes.get(session.id, 1).ended_at is None
    store.changes.conclude(ended, ready)
    assert store.changes.get(session.id, 1) == replace(ended, text="plus bleu \ufffd !")
    assert store.sessions.get(session.id).turns == Turns(requested=1, finished=1, started=1)


def test_an_unknown_change_is_not_found(store: SqlStore) -> None:
    session = add_session(store)
    with pytest.raises(errors.NotFound):
        store.changes.get(session.id, 1)
    assert store.changes.list(session.id) == []


def test_the_summary_of_a_change_is_written_with_its_version(store: SqlStore) -> None:
    session = add_session(store)
    record = bundle_record(session_id=session.id, summary="")
    session = store.bundles.keep(record, session)
    change, saved = add_change(store, session)
    described = replace(record, summary="A board.")
    with pytest.raises(errors.StaleWrite):
        store.changes.conclude(change, session, described)
    assert store.bundles.list(session.id) == [record]
    store.changes.conclude(change, saved, described)
    assert store.bundles.list(session.id) == [described]
