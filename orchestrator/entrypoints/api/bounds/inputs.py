"""What requests may contain: the bounds of bodies, headers and parameters, each said once.

The endpoints of users and operators declare their inputs with these types. So an input is refused
where it is read, before any other code sees it. What a time to live or a label is, the domain says;
the types here bound only how much of it comes in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Header, Path, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from orchestrator.domain import errors, ids
from orchestrator.domain.ids import UserId
from orchestrator.domain.people.access import PROMPT_MAX_BYTES, TTL_MAX_S, TTL_MIN_S
from orchestrator.domain.pool import host_fields
from orchestrator.domain.sessions.session import SessionState
from orchestrator.services.people import keys
from orchestrator.services.pool import hosts
from orchestrator.services.sessions import prompts

_NUMBER_MAX = 2**31 - 1


def _form(form: re.Pattern[str]) -> dict[str, Any]:
    """That a whole text has this form, in the words of a schema."""
    return {"pattern": f"^({form.pattern})$"}


# What domain and services check in their own words, as the OpenAPI document says it.
_PLAIN = "[^" + prompts.CONTROL.pattern[1:]
_TEXT: dict[str, Any] = {
    "maxLength": PROMPT_MAX_BYTES,
    "pattern": f"^{_PLAIN}*{_PLAIN[:-1]}\\s]{_PLAIN}*$",
}
_PROMPT: dict[str, Any] = {"maxLength": PROMPT_MAX_BYTES, "pattern": f"^{_PLAIN}*$"}
# Which names templates have, errors/documented.py adds: each installation may have others.
NEW_APP: dict[str, Any] = {
    "examples": [{"template": "todo"}, {"prompt": "a tide calendar for Brest", "ttl": "2h"}],
    "anyOf": [
        {"required": ["template"], "properties": {"template": {"type": "string"}}},
        {"required": ["prompt"], "properties": {"prompt": _TEXT}},
    ],
}
_WORD: dict[str, Any] = {"pattern": f"^({host_fields.LABEL.pattern})?$"}
_LABELS: dict[str, Any] = {
    "propertyNames": {"type": "string", **_form(host_fields.LABEL)},
    "additionalProperties": {"type": "string", **_WORD},
}
_ID_TAIL = "[a-z2-7]{26}$"
_TTL_FORMS = (  # from a minute to a week
    "(6[0-9]|[7-9][0-9]|[1-9][0-9]{2,4}|[1-5][0-9]{5}|60[0-3][0-9]{3}|604[0-7][0-9]{2}|604800)s?",
    "([1-9][0-9]{0,3}|100[0-7][0-9]|10080)m",
    "([1-9][0-9]?|1[0-5][0-9]|16[0-8])h",
    "[1-7]d",
)
_TTL: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "pattern": f"^({'|'.join(_TTL_FORMS)})$"},
        {"type": "integer", "minimum": TTL_MIN_S, "maximum": TTL_MAX_S},
    ]
}


def example(**fields: Any) -> ConfigDict:
    """For a body's `model_config`: a valid one, as the OpenAPI document shows it."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


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


def _check_number(value: Any) -> Any:
    """Refuse what pydantic would turn into a number: "3", true."""
    if isinstance(value, str | bool):
        raise ValueError("Input should be a valid integer")
    return value


def _check_user(text: str) -> UserId:
    if not ids.is_id(text, "usr"):
        raise errors.InvalidInput(
            "that is no user's id: it is usr_ and 26 characters", field="user"
        )
    return UserId(text)


Text = Annotated[
    str, Field(description="Plain text of 16 KiB at most, in UTF-8.", json_schema_extra=_TEXT)
]
Prompt = Annotated[
    str,
    Field(
        description="What the app should be, in plain text of 16 KiB at most, in UTF-8. May be"
        " empty if a template is named.",
        json_schema_extra=_PROMPT,
    ),
]
Ttl = Annotated[
    str | int,
    Field(
        description="`45m`, `2h`, `1d`, or seconds. Visitors have a day at most, users three.",
        json_schema_extra=_TTL,
    ),
]
TemplateName = Annotated[str, Field(max_length=60)]
_Text63 = Annotated[str, Field(max_length=63)]  # a region, a label's key or its value
Word = Annotated[_Text63, Field(json_schema_extra=_WORD)]
Labels = Annotated[
    dict[_Text63, _Text63],
    Field(max_length=host_fields.LABELS_MAX, json_schema_extra=_LABELS),
    BeforeValidator(_check_count),
]
KeyName = Annotated[str, Field(json_schema_extra={"maxLength": keys.NAME_MAX, **_form(keys.NAME)})]
Flag = Annotated[bool, Field(strict=True)]  # no "yes", no 1
HostName = Annotated[str, Field(max_length=60, json_schema_extra=_form(host_fields.NAME))]
HostAddress = Annotated[
    str,
    Field(
        max_length=host_fields.ADDRESS_MAX,
        description="ssh://user@host[:port]",
        json_schema_extra=_form(host_fields.ADDRESS),
    ),
]
HostKey = Annotated[
    str,
    Field(
        max_length=8192,
        description="Its public host key, which is pinned: `ssh-ed25519 AAAA...`.",
        json_schema_extra=_form(hosts.KEY_LINE),
    ),
]
PublishAddress = Annotated[
    str,
    Field(
        max_length=60,
        description="The IPv4 address at which the proxy reaches it.",
        json_schema_extra=_form(host_fields.PUBLISH_ADDRESS),
    ),
]
Slots = Annotated[
    int,
    Field(json_schema_extra={"minimum": 1, "maximum": hosts.SLOTS_MAX}),
    BeforeValidator(_check_number),
]
# Whatever else stands in a path is nothing that exists: 404, in the words of the services.
SessionIdInPath = Annotated[str, Path(json_schema_extra={"pattern": f"^ses_{_ID_TAIL}"})]
KeyIdInPath = Annotated[str, Path(json_schema_extra={"pattern": f"^key_{_ID_TAIL}"})]
HostInPath = Annotated[str, Path(json_schema_extra=_form(host_fields.NAME))]
IdempotencyKey = Annotated[str | None, Header(max_length=255)]
States = Annotated[
    list[SessionState] | None,
    Query(max_length=len(SessionState), description="Only these; may be repeated."),
]
User = Annotated[
    UserId | None,
    Query(
        max_length=30,
        json_schema_extra={"anyOf": [{"type": "string", "pattern": f"^usr_{_ID_TAIL}"}]},
    ),
    AfterValidator(_check_user),
]
IdPrefix = Annotated[str, Query(max_length=30, pattern=r"^[a-z2-7_]*$")]
VersionInPath = Annotated[int, Path(le=_NUMBER_MAX)]
VersionInQuery = Annotated[int | None, Query(ge=1, le=_NUMBER_MAX)]
