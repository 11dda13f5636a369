"""ports.Changes: a change and the session that counts it are written together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import errors
from orchestrator.domain.sessions.change_turns import Turns
from orchestrator.domain.sessions.changes import Change
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
