"""A PostgreSQL that takes our statement and never answers: whoever waits gets an error in time."""

from __future__ import annotations

import pytest
from sqlalchemy import exc

from orchestrator.adapters.sql_store import database
from tests.chaos.faults import Part

_LIMIT_S = 0.5


def test_a_silent_server_is_given_up_and_asked_again_over_a_new_connection(
    empty_postgres_url: str,
) -> None:
    url = database.parse(empty_postgres_url)
    with Part(int(str(url.query["port"]))).running() as part:
        behind = url.set(query={"host": "127.0.0.1", "port": str(part.port)})
        engine = database.engine_for(behind, pool_size=1, answer_s=_LIMIT_S)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1
            with part.hanging(), pytest.raises(exc.OperationalError) as silent:
                connection.exec_driver_sql("SELECT 2")
            assert silent.value.connection_invalidated
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT 3").scalar() == 3
        engine.dispose()


def test_a_server_that_answers_in_time_may_be_asked_for_longer_than_the_limit(
    empty_postgres_url: str,
) -> None:
    engine = database.engine_for(database.parse(empty_postgres_url), pool_size=1, answer_s=_LIMIT_S)
    with engine.connect() as connection:
        for _ in range(3):
            connection.exec_driver_sql("SELECT pg_sleep(0.3)")
    engine.dispose()
