"""ports.Logs, Keys, Audit and Leases."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from orchestrator.adapters import sql_store
from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import errors, ids
from orchestrator.domain.people.access import Role
from orchestrator.domain.sessions.session import Tier
from orchestrator.ports import LOG_MAX_BYTES, AuditEntry, LogLine
from tests.contract.store.steps import add_session, run_together
from tests.fakes import samples
from tests.fakes.samples import NOW, later
from tests.fakes.terms import TermThatEnds


def test_the_log_keeps_the_last_lines_in_order(store: SqlStore) -> None:
    session, other = add_session(store), add_session(store)
    store.logs.append(session.id, ["one", "two", "three"], NOW)
    store.logs.append(other.id, ["other"], NOW)
    store.logs.append(session.id, [], NOW)
    store.logs.append(session.id, ["four", "five", "nul \0"], later(1))
    lines = [LogLine(at=NOW, text="two"), LogLine(at=NOW, text="three")]
    lines += [LogLine(at=later(1), text=text) for text in ("four", "five", "nul \ufffd")]
    assert store.logs.tail(session.id, 99) == lines
    assert store.logs.tail(session.id, 2) == lines[-2:]
    assert store.logs.tail(other.id, 99) == [LogLine(at=NOW, text="other")]
    store.logs.append(session.id, [f"line {number}" for number in range(20)], NOW)
    assert [line.text for line in store.logs.tail(session.id, 99)] == [
        f"line {number}" for number in range(15, 20)
    ]


def test_the_log_keeps_a_bounded_number_of_bytes(store: SqlStore) -> None:
    session, other = add_session(store), add_session(store)
    half = "é" * (LOG_MAX_BYTES // 4)
    store.logs.append(other.id, [half], NOW)
    for text in (f"a{half}", half, half[1:] + "b"):
        store.logs.append(session.id, [text], NOW)
    assert [line.text[-1] for line in store.logs.tail(session.id, 99)] == ["é", "b"]
    store.logs.append(session.id, ["c"], NOW)
    assert [line.text[-1] for line in store.logs.tail(session.id, 99)] == ["é", "b", "c"]
    store.logs.append(session.id, ["d"], NOW)
    assert [line.text[-1] for line in store.logs.tail(session.id, 99)] == ["b", "c", "d"]
    assert len(store.logs.tail(other.id, 99)) == 1


def test_nothing_is_logged_for_an_unknown_session(store: SqlStore) -> None:
    with pytest.raises(errors.NotFound):
        store.logs.append(ids.new_session_id(), ["hello"], NOW)


def test_a_key_is_found_by_its_hash_until_it_is_revoked(store: SqlStore) -> None:
    key = samples.api_key(tier=Tier.OPERATOR, role=Role.OPERATOR)
    older = samples.api_key(created_at=later(-5))
    store.keys.add(key)
    store.keys.add(older)
    assert store.keys.by_hash(key.key_hash) == key
    assert store.keys.by_hash("0" * 64) is None
    store.keys.revoke(key.id, later(1))
    store.keys.revoke(key.id, later(2))
    assert store.keys.by_hash(key.key_hash) is None
    assert store.keys.list() == [older, replace(key, revoked_at=later(1))]
    with pytest.raises(errors.NotFound):
        store.keys.revoke(ids.new_key_id(), NOW)


def test_the_name_of_a_key_is_free_again_once_it_is_revoked(store: SqlStore) -> None:
    key = samples.api_key(name="ci")
    store.keys.add(key)
    with pytest.raises(errors.Conflict) as caught:
        store.keys.add(samples.api_key(name="ci"))
    assert caught.value.code == "key_exists"
    store.keys.revoke(key.id, NOW)
    second = samples.api_key(name="ci")
    store.keys.add(second)
    assert store.keys.by_hash(second.key_hash) == second


def test_the_audit_log_is_read_newest_first(store: SqlStore) -> None:
    entries = [
        AuditEntry(at=later(n), actor="operator", action="session_killed", subject=f"ses_{n}")
        for n in range(4)
    ]
    entries.append(replace(entries[0], detail="détail \0"))
    for entry in entries:
        store.audit.add(entry)
    newest_first = [replace(entries[-1], detail="détail \ufffd"), *entries[-2::-1]]
    listed = store.audit.list()
    assert [replace(entry, number=0) for entry in listed] == newest_first
    assert store.audit.list(limit=2) == listed[:2]
    assert store.audit.list(before=listed[1].number) == listed[2:]
    numbers = [entry.number for entry in listed]
    assert numbers == sorted(set(numbers), reverse=True)


def test_the_audit_log_forgets_what_is_too_old(store: SqlStore) -> None:
    for seconds in range(4):
        store.audit.add(
            AuditEntry(at=later(seconds), actor="operator", action="done", subject="ses_1")
        )
    assert store.audit.prune(later(2)) == 2
    assert [entry.at for entry in store.audit.list()] == [later(3), later(2)]
    assert store.audit.prune(later(2)) == 0


def test_a_lease_has_one_holder_until_it_runs_out(store: SqlStore) -> None:
    assert store.leases.holder("leader", NOW) is None
    assert store.leases.hold("leader", "a", later(10), NOW)
    assert not store.leases.hold("leader", "b", later(20), later(5))
    assert store.leases.hold("leader", "a", later(15), later(5)), "its holder renews it"
    assert not store.leases.hold("leader", "b", later(25), later(14))
    assert store.leases.holder("leader", later(14)) == "a"
    assert store.leases.holder("leader", later(15)) is None
    assert store.leases.hold("leader", "b", later(25), later(15))
    assert not store.leases.hold("leader", "a", later(30), later(16))
    assert store.leases.hold("another", "a", later(30), later(16))


def test_a_lease_is_released_by_its_holder_only(store: SqlStore) -> None:
    assert store.leases.hold("leader", "a", later(10), NOW)
    store.leases.release("leader", "b")
    assert not store.leases.hold("leader", "b", later(20), NOW)
    store.leases.release("leader", "a")
    store.leases.release("leader", "a")
    assert store.leases.hold("leader", "b", later(20), NOW)


def test_every_holder_of_a_lease_has_a_greater_number_than_the_one_before(store: SqlStore) -> None:
    assert store.leases.last("leader") is None
    assert store.leases.hold("leader", "a", later(10), NOW) == 1
    assert store.leases.hold("leader", "a", later(15), later(5)) == 1, "it renews its lease"
    assert store.leases.hold("leader", "b", later(25), later(15)) == 2
    store.leases.release("leader", "b")
    assert store.leases.hold("leader", "a", later(30), later(16)) == 3, "a release forgets nothing"
    assert store.leases.hold("another", "a", later(30), later(16)) == 1
    record = store.leases.last("leader")
    assert record is not None
    assert (record.holder, record.until, record.term) == ("a", later(30), 3)


def test_of_concurrent_candidates_one_gets_the_lease(store: SqlStore) -> None:
    start = threading.Barrier(4)
    outcomes: list[bool] = []

    def candidate(name: str) -> None:
        start.wait()
        outcomes.append(store.leases.hold("leader", name, later(10), NOW) is not None)

    run_together([lambda name=name: candidate(name) for name in "abcd"])
    assert sorted(outcomes) == [False, False, False, True]


def test_a_leader_writes_during_its_term_alone(store_url: str) -> None:
    term = TermThatEnds()
    store = sql_store.open_store(store_url, check_term=term.check)
    host = samples.host()
    store.hosts.put(host)
    term.checks_left = 1  # it ends during the transaction
    with pytest.raises(errors.TermOver):
        store.hosts.change(host.id, lambda host: replace(host, reason="of an earlier leader"))
    with pytest.raises(errors.TermOver):
        store.hosts.put(samples.host())
    assert store.hosts.list() == [host]
    store.close()
