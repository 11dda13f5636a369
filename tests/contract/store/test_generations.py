"""ports.Generations: an earlier bundle is found while it is fresh."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import ids
from orchestrator.domain.sessions.generations import Generation
from tests.fakes.samples import NOW, later

MADE = Generation(
    key="k" * 64,
    bundle=ids.Sha256("1" * 64),
    session_id=ids.SessionId("ses_1"),
    summary="Une page \0 sur les marées",
    created_at=NOW,
)


def test_a_generation_is_found_by_its_key_for_an_hour(store: SqlStore) -> None:
    assert store.generations.find(MADE.key, NOW) is None
    store.generations.put(MADE)
    kept = replace(MADE, summary="Une page \ufffd sur les marées")
    assert store.generations.find(MADE.key, later(3599)) == kept
    assert store.generations.find(MADE.key, later(3600)) is None
    assert store.generations.find("another", NOW) is None


def test_the_youngest_of_a_key_counts(store: SqlStore) -> None:
    younger = replace(MADE, bundle=ids.Sha256("2" * 64), summary="", created_at=later(10))
    store.generations.put(younger)
    store.generations.put(MADE)
    assert store.generations.find(MADE.key, later(20)) == younger


def test_what_is_no_longer_fresh_is_pruned(store: SqlStore) -> None:
    store.generations.put(MADE)
    store.generations.put(replace(MADE, key="other", summary="", created_at=later(60)))
    assert store.generations.prune(later(3600)) == 1
    assert store.generations.prune(later(3600)) == 0
    assert store.generations.find("other", later(3600)) is not None
