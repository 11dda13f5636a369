"""ports.Generations: an earlier bundle is found while it is fresh."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.adapters.sql_store import SqlStore
from orchestrator.domain import ids
from orchestrator.domain.sessions.generations import Generation
from tests.fakes.samples import NOW, later

GENERATION = Generation(
    key="k" * 64,
    bundle=ids.Sha256("1" * 64),
    session_id=ids.SessionId("ses_1"),
    summary="Une page \0 sur les marées",
    created_at=NOW,
)


def test_a_generation_is_found_by_its_key_for_an_hour(store: SqlStore) -> None:
    assert store.generations.find(GENERATION.key, NOW) is None
    store.generations.put(GENERATION)
    stored = replace(GENERATION, summary="Une page \ufffd sur les marées")
    assert store.generations.find(GENERATION.key, later(3599)) == stored
    assert store.generations.find(GENERATION.key, later(3600)) is None
    assert store.generations.find("another", NOW) is None


def test_the_youngest_generation_of_a_key_is_found(store: SqlStore) -> None:
    younger = replace(GENERATION, bundle=ids.Sha256("2" * 64), summary="", created_at=later(10))
    store.generations.put(younger)
    store.generations.put(GENERATION)
    assert store.generations.find(GENERATION.key, later(20)) == younger


def test_generations_that_are_no_longer_fresh_are_pruned(store: SqlStore) -> None:
    store.generations.put(GENERATION)
    store.generations.put(replace(GENERATION, key="other", summary="", created_at=later(60)))
    assert store.generations.prune(later(3600)) == 1
    assert store.generations.prune(later(3600)) == 0
    assert store.generations.find("other", later(3600)) is not None
