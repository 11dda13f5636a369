"""ports.Sessions: writing a session and reading it back. The queue is in test_queue.py."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from orchestrator.adapters.sql_store import SqlStore, schema
from orchestrator.adapters.sql_store.sessions import EVENTS_MAX
from orchestrator.domain import errors, ids
from orchestrator.domain.sessions.progress import message_of, progress_of
from orchestrator.domain.sessions.session import (
    HISTORY_MAX,
    HistoryEntry,
    Session,
    SessionState,
    Tier,
)
from orchestrator.ports import Idempotency, SessionPosition
from tests.contract.store.steps import add, add_session, provisioning, run_together
from tests.fakes import samples
from tests.fakes.samples import NOW, later

ONCE = Idempotency(key="order-66", fingerprint="f" * 64)


def events_of(store: SqlStore, session: Session) -> list[tuple[int, datetime, str, int, str]]:
    """The rows of a session in the events table. No port reads them yet."""
    query = (
        schema.events.select()
        .where(schema.events.c.session_id == session.id)
        .order_by(schema.events.c.seq)
    )
    with store._database.read() as connection:
        return [tuple(row)[1:] for row in connection.execute(query)]


def test_every_field_of_a_session_comes_back_as_it_was(store: SqlStore) -> None:
    full, plain = samples.full_session(), samples.session()
    assert add(store, full) == full
    assert add(store, plain) == plain
    assert store.sessions.get(full.id) == full
    assert store.sessions.get(plain.id) == plain


def test_times_come_back_in_utc_whatever_zone_they_were_written_in(store: SqlStore) -> None:
    tokyo = timezone(timedelta(hours=9))
    session = add_session(store, expires_at=later(3600).astimezone(tokyo))
    for stored in (store.sessions.get(session.id), store.sessions.list()[0]):
        assert stored.expires_at == later(3600)
        for time in (stored.expires_at, stored.created_at, stored.due_at, stored.history[0].at):
            assert time.tzinfo is not None
            assert time.utcoffset() == timedelta(0)
    assert store.sessions.get(session.id).created_at.tzinfo is UTC


def test_a_time_without_a_zone_is_refused(store: SqlStore) -> None:
    session = samples.session(due_at=datetime(2026, 3, 1))  # noqa: DTZ001 - the point of this test
    with pytest.raises(Exception, match="without a time zone"):
        add(store, session)
    assert store.sessions.list() == []


def test_characters_that_a_database_can_not_store_are_replaced(store: SqlStore) -> None:
    session = add_session(store, prompt="nul \0, half \ud83d of a pair, whole 🚀")
    assert store.sessions.get(session.id).prompt == "nul \ufffd, half ? of a pair, whole 🚀"


def test_an_unknown_session_is_not_found(store: SqlStore) -> None:
    session = samples.session()
    with pytest.raises(errors.NotFound):
        store.sessions.get(session.id)
    with pytest.raises(errors.NotFound):
        store.sessions.save(session)


def test_the_same_id_twice_is_a_conflict(store: SqlStore) -> None:
    session = add_session(store)
    with pytest.raises(errors.Conflict):
        add(store, session)


def test_two_sessions_never_share_a_slug(store: SqlStore) -> None:
    first = add_session(store, slug=ids.new_slug())
    with pytest.raises(errors.Conflict):
        add_session(store, slug=first.slug)


def test_a_repeated_request_gets_the_session_of_the_first(store: SqlStore) -> None:
    first = add(store, samples.session(), ONCE)
    saved = store.sessions.save(provisioning(first))
    repeated = add(store, samples.session(prompt="a repeat"), ONCE)
    assert repeated == saved
    assert store.sessions.list() == [saved]


def test_another_request_under_the_same_key_is_a_conflict(store: SqlStore) -> None:
    add(store, samples.session(), ONCE)
    with pytest.raises(errors.Conflict) as caught:
        add(store, samples.session(), replace(ONCE, fingerprint="0" * 64))
    assert caught.value.code == "idempotency_conflict"
    assert len(store.sessions.list()) == 1


def test_an_idempotency_key_counts_for_its_user_only(store: SqlStore) -> None:
    mine = add(store, samples.session(), ONCE)
    others = add(store, samples.session(user_id=ids.new_user_id()), ONCE)
    assert mine.id != others.id
    assert len(store.sessions.list()) == 2


def test_concurrent_requests_with_one_key_make_one_session(store: SqlStore) -> None:
    start = threading.Barrier(4)
    sessions: list[Session] = []

    def request() -> None:
        start.wait()
        sessions.append(add(store, samples.session(), ONCE))

    run_together([request] * 4)
    assert len(sessions) == 4
    assert {session.id for session in sessions} == {store.sessions.list()[0].id}
    assert len(store.sessions.list()) == 1


def test_a_user_has_no_more_sessions_than_the_limit(store: SqlStore) -> None:
    ended = add_session(store, state=SessionState.DESTROYED)
    first = add(store, samples.session(), ONCE, max_active=2)
    add(store, samples.session(), max_active=2)
    with pytest.raises(errors.LimitReached) as caught:
        add(store, samples.session(), max_active=2)
    assert caught.value.detail["limit"] == 2
    assert add(store, samples.session(), ONCE, max_active=2) == first, "a repeat adds nothing"
    add(store, samples.session(user_id=ids.new_user_id()), max_active=2)
    assert len(store.sessions.list(user_id=ended.user_id)) == 3


def test_a_user_starts_no_more_sessions_a_minute_than_the_rate(store: SqlStore) -> None:
    def start(seconds: float, **changes: Any) -> Session:
        session = samples.session(created_at=later(seconds), **changes)
        return store.sessions.add(session, None, max_active=100, max_per_minute=2)

    start(0)
    start(20, state=SessionState.DESTROYED)
    with pytest.raises(errors.LimitReached) as caught:
        start(45.5)
    assert (caught.value.code, caught.value.detail["limit"]) == ("too_many_starts", 2)
    assert caught.value.retry_after_s == 15
    start(45.5, user_id=ids.new_user_id())
    start(60)
    with pytest.raises(errors.LimitReached):
        start(79)
    start(80)


def test_concurrent_requests_never_pass_the_limit(store: SqlStore) -> None:
    start = threading.Barrier(4)
    outcomes: list[str] = []

    def request() -> None:
        start.wait()
        try:
            add(store, samples.session(), max_active=2)
            outcomes.append("added")
        except errors.LimitReached:
            outcomes.append("refused")

    run_together([request] * 4)
    assert sorted(outcomes) == ["added", "added", "refused", "refused"]


def test_a_session_keeps_its_last_events(store: SqlStore) -> None:
    session = add_session(store)
    entry = HistoryEntry(state=SessionState.QUEUED, at=NOW)
    old = replace(session, history=(entry, entry), history_dropped=EVENTS_MAX - 1)
    saved = store.sessions.save(old)
    assert _event_numbers(store, session) == [EVENTS_MAX, EVENTS_MAX + 1]
    many = (entry,) * EVENTS_MAX
    store.sessions.save(replace(saved, history=many, history_dropped=EVENTS_MAX + 1))
    assert _event_numbers(store, session) == list(range(EVENTS_MAX + 2, 2 * EVENTS_MAX + 2))


def _event_numbers(store: SqlStore, session: Session) -> list[int]:
    return [row[0] for row in events_of(store, session)]


def test_a_save_takes_the_session_to_its_next_revision(store: SqlStore) -> None:
    session = add_session(store)
    changed = replace(
        samples.full_session(), id=session.id, revision=session.revision, tier=Tier.OPERATOR
    )
    saved = store.sessions.save(changed)
    assert saved == replace(changed, revision=session.revision + 1)
    assert store.sessions.get(session.id) == saved


def test_a_save_after_somebody_elses_save_is_stale(store: SqlStore) -> None:
    session = add_session(store)
    saved = store.sessions.save(replace(session, attempt=2))
    with pytest.raises(errors.StaleWrite):
        store.sessions.save(provisioning(session))
    assert store.sessions.get(session.id) == saved
    assert [seq for seq, *_ in events_of(store, session)] == [1]


def test_of_concurrent_saves_exactly_one_wins(store: SqlStore) -> None:
    session = add_session(store)
    start = threading.Barrier(4)
    outcomes: list[str] = []

    def save() -> None:
        start.wait()
        try:
            store.sessions.save(provisioning(session))
            outcomes.append("saved")
        except errors.StaleWrite:
            outcomes.append("stale")

    run_together([save] * 4)
    assert sorted(outcomes) == ["saved", "stale", "stale", "stale"]
    assert store.sessions.get(session.id).revision == session.revision + 1


def test_every_new_entry_of_the_history_becomes_an_event(store: SqlStore) -> None:
    session = add_session(store)
    queued = (1, NOW, "queued", 10, "Waiting for a free sandbox")
    assert events_of(store, session) == [queued]

    twice = provisioning(session).transition(SessionState.GENERATING, later(1))
    saved = store.sessions.save(twice)
    store.sessions.save(replace(saved, due_at=later(9)))  # no new entry, no event
    assert events_of(store, session) == [
        queued,
        (2, NOW, "provisioning", 30, "Preparing a sandbox"),
        (3, later(1), "generating", progress_of(twice), message_of(twice)),
    ]


def test_a_session_that_is_added_with_a_history_has_its_events(store: SqlStore) -> None:
    session = add(store, samples.full_session())
    assert [state for _, _, state, _, _ in events_of(store, session)] == [
        entry.state for entry in session.history
    ]


def test_the_events_go_on_when_a_session_has_dropped_the_first_of_its_history(
    store: SqlStore,
) -> None:
    session = add_session(store)
    for number in range(120):
        is_even = number % 2 == 0
        to = SessionState.PROVISIONING if is_even else SessionState.QUEUED
        session = store.sessions.save(session.transition(to, later(number)))
    assert store.sessions.get(session.id).history == session.history
    assert len(session.history) == HISTORY_MAX
    events = events_of(store, session)
    assert [seq for seq, *_ in events] == list(range(1, 122))
    assert [at for _, at, *_ in events[1:]] == [later(number) for number in range(120)]


def test_a_long_history_comes_back_to_the_microsecond(store: SqlStore) -> None:
    history = tuple(
        HistoryEntry(state=SessionState.QUEUED, at=NOW + timedelta(microseconds=3 * number))
        for number in range(200)
    )
    session = add_session(store, history=history)
    assert store.sessions.get(session.id).history == history


def test_the_list_has_live_sessions_first_then_the_newest_and_is_filtered(store: SqlStore) -> None:
    other = ids.new_user_id()
    old = add_session(store, created_at=later(-10))
    new = add_session(store, state=SessionState.READY)
    ended = add_session(store, created_at=later(-5), state=SessionState.FAILED)
    others = add_session(store, created_at=later(5), user_id=other)
    assert store.sessions.list() == [others, new, old, ended]
    assert store.sessions.list(limit=2) == [others, new]
    assert store.sessions.list(user_id=other) == [others]
    assert store.sessions.list(states=[SessionState.READY, SessionState.FAILED]) == [new, ended]
    assert store.sessions.list(user_id=other, states=[SessionState.READY]) == []
    assert store.sessions.list(states=[]) == []


def test_running_sessions_are_seen_however_many_have_ended(store: SqlStore) -> None:
    running = add_session(store, created_at=later(-100), state=SessionState.READY)
    for number in range(5):
        add_session(store, created_at=later(number), state=SessionState.DESTROYED)
    assert store.sessions.list(limit=3)[0] == running


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pages_of_any_size_give_every_session_once_and_in_order(store: SqlStore, size: int) -> None:
    for number in range(3):
        add_session(store, created_at=later(number // 2))  # two of the same instant
        add_session(store, created_at=later(number // 2), state=SessionState.FAILED)
    everything = store.sessions.list()
    listed: list[Session] = []
    after = None
    while page := store.sessions.list(after=after, limit=size):
        listed += page
        after = SessionPosition(
            ended=page[-1].ended, created_at=page[-1].created_at, session_id=page[-1].id
        )
    assert len(everything) == 6
    assert listed == everything


def test_a_page_is_filtered_like_the_whole_list(store: SqlStore) -> None:
    other = ids.new_user_id()
    mine = [add_session(store, created_at=later(number)) for number in range(3)]
    for number in range(3):
        add_session(store, created_at=later(number), user_id=other)
    after = SessionPosition(ended=False, created_at=mine[2].created_at, session_id=mine[2].id)
    assert store.sessions.list(user_id=mine[0].user_id, after=after) == [mine[1], mine[0]]
    assert store.sessions.list(states=[SessionState.READY], after=after) == []


def test_sessions_are_listed_by_the_beginning_of_their_id(store: SqlStore) -> None:
    session, _ = add_session(store), add_session(store, state=SessionState.FAILED)
    assert store.sessions.list(id_prefix=session.id[:12]) == [session]
    assert store.sessions.list(id_prefix=session.id) == [session]
    assert store.sessions.list(id_prefix=session.id + "a") == []
    assert len(store.sessions.list(id_prefix="ses_")) == 2
