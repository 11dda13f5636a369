"""Reads the fields of a decoded JSON object, each within its bounds. Used by its siblings."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from typing import TypeVar

from orchestrator.contract import json_bounds

Choice = TypeVar("Choice", bound=StrEnum)
_NUMBER_MAX = 2**53
_VALUES_MAX = 10_000  # of a whole document; a report has some hundreds


class ProtocolError(ValueError):
    """The other side sent something that this side doesn't take.

    `field` names the field, as in `error.code`; the message begins with it. `problem` is the rest.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


def decode(raw: bytes, field: str) -> object:
    """The JSON in `raw`, in UTF-8. Raises ProtocolError, with `field` as the name of the whole."""
    try:
        json_bounds.check(raw, _VALUES_MAX)
    except ValueError as error:
        raise ProtocolError(field, f"has {error}") from error
    try:
        document: object = json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise ProtocolError(field, "is not JSON") from error
    return document


class Fields:
    """The fields of one object. Every method raises ProtocolError. Null counts as missing."""

    def __init__(self, value: object, name: str, *, prefix: str = "") -> None:
        """`prefix` goes before the names of the fields in errors, such as `error.`."""
        if not isinstance(value, dict):
            raise ProtocolError(name, "must be an object")
        self._values = value
        self._prefix = prefix

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def text(self, name: str, *, longest: int | None = None, empty: bool = False) -> str:
        """A text of at most `longest` characters; the empty one only if `empty`."""
        value = self._values.get(name)
        if not isinstance(value, str) or not (value or empty):
            raise self.wrong(name, "is missing or not a text")
        return _bounded(value, longest, self._prefix + name)

    def texts(self, name: str, *, most: int, longest: int) -> tuple[str, ...]:
        """A list of at most `most` texts."""
        values = self._values.get(name)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.wrong(name, "is missing or not a list of texts")
        if len(values) > most:
            raise self.wrong(name, f"has more than {most} entries")
        return tuple(
            _bounded(value, longest, f"{self._prefix}{name}.{at}")
            for at, value in enumerate(values)
        )

    def whole(self, name: str, *, least: int = 0, most: int | None = None) -> int:
        """A whole number from `least` to `most`."""
        value = self.number(name)
        if value != int(value):
            raise self.wrong(name, "must be a whole number")
        if value < least or (most is not None and value > most):
            limits = f"at least {least}" if most is None else f"from {least} to {most}"
            raise self.wrong(name, f"must be {limits}")
        return int(value)

    def number(self, name: str) -> float:
        """A number that is not negative, and that a float holds exactly if it is whole."""
        value = self._values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, "is missing or not a number")
        if value < 0 or (isinstance(value, float) and not math.isfinite(value)):
            raise self.wrong(name, "must be a finite number that is not negative")
        if value > _NUMBER_MAX:
            raise self.wrong(name, "is too large")
        return value

    def flag(self, name: str, *, default: bool | None = None) -> bool:
        """True or false; without a default it must be there."""
        value = self._values.get(name)
        if value is None:
            value = default
        if not isinstance(value, bool):
            raise self.wrong(name, "is missing or neither true nor false")
        return value

    def choice(self, name: str, choices: type[Choice]) -> Choice:
        """A member of `choices`, by its value."""
        value = self._values.get(name)
        if not isinstance(value, str) or value not in set(choices):
            raise self.wrong(name, f"must be one of {', '.join(choices)}")
        return choices(value)

    def value(self, name: str) -> object:
        """Whatever the field holds."""
        return self._values.get(name)

    def child(self, name: str) -> Fields | None:
        """The fields of an object inside this one; None if it is missing."""
        return self._inner(self._values[name], name) if self.has(name) else None

    def children(self, name: str) -> tuple[Fields, ...]:
        """Those of each object in a list; none if the list is missing."""
        values = self._values.get(name)
        if values is None:
            return ()
        if not isinstance(values, list):
            raise self.wrong(name, "must be a list")
        return tuple(self._inner(value, f"{name}.{at}") for at, value in enumerate(values))

    def _inner(self, value: object, name: str) -> Fields:
        path = self._prefix + name
        return Fields(value, path, prefix=f"{path}.")

    def wrong(self, name: str, problem: str) -> ProtocolError:
        """The error to raise about one of these fields."""
        return ProtocolError(self._prefix + name, problem)


def _bounded(value: str, longest: int | None, field: str) -> str:
    if longest is not None and len(value) > longest:
        raise ProtocolError(field, f"is longer than {longest} characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can name
        raise ProtocolError(field, "holds characters that are no text") from error
    return value
