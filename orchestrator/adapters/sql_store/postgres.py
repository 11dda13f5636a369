"""Connects to PostgreSQL, directly or through a pooler such as PgBouncer. database.py uses it.

A pooler in transaction mode gives each transaction any of its connections to the server, so nothing
may outlive a transaction there: no setting, no prepared statement, no lock of a session. Poolers
refuse or ignore our start-up parameters; this is how we tell them from a server.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg
from sqlalchemy import event
from sqlalchemy.engine import URL, Dialect, Engine

CONNECT_S = 5
ANSWER_S = 20.0  # the longest wait for an answer; the server limits its statements to less
_LIMITS_MS = {
    "statement_timeout": 15_000,
    "lock_timeout": 10_000,
    "idle_in_transaction_session_timeout": 60_000,
}
_MARK = "spawnai.direct"  # a setting of ours: it is there if the server has got our parameters
_BEGIN = "begin"
# With a pooler every transaction sets its own limits. One round trip, as for BEGIN alone.
_POOLED_BEGIN = "BEGIN;" + ";".join(f"SET LOCAL {name} = {ms}" for name, ms in _LIMITS_MS.items())


class _Connection(psycopg.Connection[Any]):
    """Gives up a server that is silent. The kernel doesn't: a stopped server's machine, or a pooler
    before it, still confirms what we send."""

    answer_s: float | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        limit_s = self.answer_s if timeout is None else timeout
        began_at = time.monotonic()
        try:
            return super().wait(gen, interval, limit_s)
        except psycopg.OperationalError:
            if limit_s is not None and time.monotonic() - began_at >= limit_s:
                self.pgconn.finish()  # its answer may still come, and would be taken for the next
            raise


def connect_args(url: URL, wait_s: int) -> dict[str, Any]:
    """What we tell driver and server, unless the URL says otherwise."""
    limits = "".join(f" -c {name}={ms}" for name, ms in _LIMITS_MS.items())
    defaults = {
        "connect_timeout": CONNECT_S,
        "tcp_user_timeout": wait_s * 1000,  # for a server that vanished without closing
        "application_name": "spawnai",
        "options": f"-c {_MARK}=yes{limits}",
    }
    return {name: value for name, value in defaults.items() if name not in url.query}


def listen(engine: Engine, answer_s: float | None) -> None:
    """Let every new connection of this engine work behind a pooler, too, and give up a server that
    doesn't answer for `answer_s` seconds."""

    def connect(_dialect: Dialect, _record: object, arguments: Any, options: dict[str, Any]) -> Any:
        connection = _connect(arguments, options)
        connection.answer_s = answer_s
        return connection

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", _recognise_pooler)


def begin_of(info: dict[Any, Any], default: str) -> str:
    """What begins a transaction on the connection with this `info`."""
    return str(info.get(_BEGIN, default))


def _connect(arguments: Any, options: dict[str, Any]) -> _Connection:
    try:
        return _Connection.connect(*arguments, **options)
    except psycopg.OperationalError as error:
        if "startup parameter" not in str(error) or "options" not in options:
            raise
    own = {name: value for name, value in options.items() if name != "options"}
    return _Connection.connect(*arguments, **own)


def _recognise_pooler(connection: Any, record: Any) -> None:
    (mark,) = connection.execute(f"SELECT current_setting('{_MARK}', true)").fetchone()
    if mark != "yes":
        connection.prepare_threshold = None
        record.info[_BEGIN] = _POOLED_BEGIN
