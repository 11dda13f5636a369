"""URLs as they may be shown: without passwords and keys."""

from __future__ import annotations

# Parameters of PostgreSQL, Redis and SQLite that open nothing. Any other value is hidden.
_SHOWN = frozenset(
    [
        "application_name",
        "channel_binding",
        "connect_timeout",
        "db",
        "dbname",
        "host",
        "hostaddr",
        "mode",
        "port",
        "protocol",
        "sslcert",
        "sslkey",
        "sslmode",
        "sslrootcert",
        "target_session_attrs",
        "timeout",
        "uri",
        "user",
        "username",
    ]
)
_HIDDEN = "***"


def without_secrets(text: str) -> str:
    """The text without the password of a URL, and without the values in its query that may be one.

    Hides too much rather than too little: drivers differ in how they read a URL that doesn't quote
    its special characters.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    address, mark, query = rest.partition("?")
    if "@" in query:  # perhaps the question mark belongs to the password
        return f"{scheme}://{_HIDDEN}"
    user_info, at, place = address.rpartition("@")
    if at:
        address = f"{_user_without_secrets(scheme, user_info)}@{place}"
    return f"{scheme}://{address}{mark}{'&'.join(map(_show_parameter, query.split('&')))}"


def _user_without_secrets(scheme: str, user_info: str) -> str:
    user, colon, _ = user_info.partition(":")
    if colon:
        return f"{user}:{_HIDDEN}"
    return _HIDDEN if scheme in {"http", "https"} else user  # there it is often a key


def _show_parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    if not parameter or (equals and name in _SHOWN):
        return parameter
    return f"{name}={_HIDDEN}" if equals else _HIDDEN
