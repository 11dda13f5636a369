"""What requests may contain: the bounds of bodies, headers and parameters, each said once.

The endpoints of users and operators declare their inputs with these types. So an input is refused
where it is read, before any other code sees it. What a time to live or a label is, the domain says;
the types here bound only how much of it comes in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Header, Path, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from orchestrator.domain import errors, ids
from orchestrator.domain.ids import UserId
from orchestrator.domain.people.access import LIMITS, PROMPT_MAX_BYTES, TTL_MIN_S
from orchestrator.domain.pool import host_fields
from orchestrator.domain.sessions.session import SessionState, Tier
from orchestrator.services.sessions import prompts

_NUMBER_MAX = 2**31 - 1

# What services check in their own words, as the OpenAPI document says it.
_PLAIN = "[^" + prompts.CONTROL.pattern[1:]
_TEXT: dict[str, Any] = {
    "maxLength": PROMPT_MAX_BYTES,
    "pattern": f"^{_PLAIN}*{_PLAIN[:-1]}\\s]{_PLAIN}*$",
}
_TTL_FORMS = (  # from a minute to a week
    "(6[0-9]|[7-9][0-9]|[1-9][0-9]{2,4}|[1-5][0-9]{5}|60[0-3][0-9]{3}|604[0-7][0-9]{2}|604800)s?",
    "([1-9][0-9]{0,3}|100[0-7][0-9]|10080)m",
    "([1-9][0-9]?|1[0-5][0-9]|16[0-8])h",
    "[1-7]d",
)
_TTL: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "pattern": f"^({'|'.join(_TTL_FORMS)})$"},
        {"type": "integer", "minimum": TTL_MIN_S, "maximum": LIMITS[Tier.OPERATOR].ttl_max_s},
    ]
}


class Body(BaseModel):
    """The JSON object in a request's body. It has no fields but its own."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, body: Any) -> Any:
        """Refuse the first unknown field. A body may name thousands: pydantic reports each."""
        if isinstance(body, dict):
            for name in body:
                if name not in cls.model_fields:
                    known = ", ".join(cls.model_fields)
                    raise errors.InvalidInput(
                        f"there is no field {errors.quoted(name)} here; there are: {known}",
                        field=errors.quoted(name)[1:-1],
                    )
        return body


def _check_count(labels: Any) -> Any:
    """Count them before pydantic looks at each."""
    if isinstance(labels, Mapping) and len(labels) > host_fields.LABELS_MAX:
        host_fields.checked_labels(labels)
    return labels


def _check_user(text: str) -> UserId:
    if not ids.is_id(text, "usr"):
        raise errors.InvalidInput(
            "that is no user's id: it is usr_ and 26 characters", field="user"
        )
    return UserId(text)


Text = Annotated[
    str, Field(description="Plain text of 16 KiB at most, in UTF-8.", json_schema_extra=_TEXT)
]
Ttl = Annotated[
    str | int,
    Field(
        description="`45m`, `2h`, `1d`, or seconds. Visitors have a day at most, users three.",
        json_schema_extra=_TTL,
    ),
]
Name = Annotated[str, Field(max_length=60)]
Word = Annotated[str, Field(max_length=63)]  # a region, a label's key or its value
Labels = Annotated[
    dict[Word, Word],
    Field(max_length=host_fields.LABELS_MAX),
    BeforeValidator(_check_count),
]
IdempotencyKey = Annotated[str | None, Header(max_length=255)]
States = Annotated[
    list[SessionState] | None,
    Query(max_length=len(SessionState), description="Only these; may be repeated."),
]
User = Annotated[UserId | None, Query(max_length=30), AfterValidator(_check_user)]
IdPrefix = Annotated[str, Query(max_length=30, pattern=r"^[a-z2-7_]*$")]
VersionInPath = Annotated[int, Path(le=_NUMBER_MAX)]
VersionInQuery = Annotated[int | None, Query(ge=1, le=_NUMBER_MAX)]
