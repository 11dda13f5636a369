"""What several answers have: times, errors, log lines."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Next = Annotated[
    str | None, Field(description="The `cursor` of the next page; null: this is the last one.")
]


class Error(TypedDict):
    """Why something failed."""

    code: Annotated[str, Field(description="For programs: it stays.")]
    message: Annotated[str, Field(description="For people.")]


class LogLine(TypedDict):
    """A line that an app printed."""

    at: Time
    text: str


class Logs(TypedDict):
    """The last lines that an app printed, oldest first."""

    lines: list[LogLine]
