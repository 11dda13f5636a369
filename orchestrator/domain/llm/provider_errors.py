"""Errors of providers: what they say, and whose matter they are. Pure.

The gateway reads each error with `read` and asks `find_cause`. Endpoints say the same in several
shapes: that of the Messages API, OpenAI's, that in a list (Google) or without the object around it
(vLLM), a plain text, FastAPI's list of details.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

_MESSAGE_MAX = 2000  # characters
_DETAILS_MAX = 5

# By the error's type or code, then by its words. Anthropic says an empty account, and a limit that
# the account's owner set, with status 400 and the type of a bad request; OpenAI says it with 429.
_NO_CREDIT_KINDS = frozenset(
    {"billing_error", "insufficient_quota", "insufficient_balance", "insufficient_credits"}
    | {"exceeded_current_quota_error", "payment_required"}
)
_NO_CREDIT = re.compile(
    r"credit balance is too low|insufficient (balance|credits?|quota|funds)|out of credits?\b"
    r"|exceeded your current quota|reached your specified api usage limits",
    re.IGNORECASE,
)
_KEY_KINDS = frozenset({"authentication_error", "permission_error", "invalid_api_key"})
_KEY = re.compile(
    r"api[ _-]key (is )?(not valid|invalid|expired)|(invalid|incorrect|expired) (x-)?api[ _-]key"
    r"|organization has been disabled",
    re.IGNORECASE,
)


_STATUS_NAMES = ("code", "status", "status_code")
_STATUS = re.compile("[45][0-9]{2}", re.ASCII)


class Cause(enum.StrEnum):
    """Whose matter an error is."""

    NO_CREDIT = "no_credit"  # the account of our key is empty, or has reached its limit
    KEY = "key"  # our key is wrong, or may not do this
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class ProviderError:
    """What a provider says of an error; "" for what it leaves out."""

    kind: str = ""  # its type
    code: str = ""
    message: str = ""
    is_native: bool = False  # has the shape of the Messages API


def error_of(document: object) -> object:
    """The object or the text in a decoded body that says what went wrong. None: it is no error."""
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if not isinstance(document, dict):
        return None
    error = document if document.get("object") == "error" else document.get("error") or None
    # Some answers have the fields of an error, with nothing in them.
    return error if not isinstance(error, dict) or any(error.values()) else None


def status_in(document: object) -> int | None:
    """The HTTP status that an error names, which may have come with another one."""
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    for place in (error_of(document), document):
        fields = place if isinstance(place, dict) else {}
        for name in _STATUS_NAMES:
            if _STATUS.fullmatch(str(fields.get(name))):
                return int(str(fields[name]))
    return None


def read(document: object) -> ProviderError:
    """The error in a decoded body."""
    error = error_of(document)
    if not isinstance(document, dict):
        document = {}
    if isinstance(error, dict):
        return ProviderError(
            kind=_word(error, "type"),
            code=_word(error, "code"),
            message=_text(error.get("message")),
            is_native=document.get("type") == "error"
            and isinstance(error.get("type"), str)
            and isinstance(error.get("message"), str),
        )
    message = error or document.get("message") or _details(document.get("detail"))
    return ProviderError(message=_text(message))


def find_cause(status: int, error: ProviderError) -> Cause:
    """Whose matter an error with this status is. Raises nothing: what isn't known is OTHER."""
    names = {error.kind, error.code}
    if not 400 <= status < 500:
        return Cause.OTHER
    if status == 402 or names & _NO_CREDIT_KINDS or _NO_CREDIT.search(error.message):
        return Cause.NO_CREDIT
    if status in (401, 403) or names & _KEY_KINDS or _KEY.search(error.message):
        return Cause.KEY
    return Cause.OTHER


def _word(error: Mapping[str, object], name: str) -> str:
    value = error.get(name)
    return value[:100] if isinstance(value, str) else ""


def _text(value: object) -> str:
    return value[:_MESSAGE_MAX] if isinstance(value, str) else ""


def _details(detail: object) -> object:
    """FastAPI's list of what is wrong, as text; any other detail as it is."""
    if not isinstance(detail, list):
        return detail
    lines = []
    for item in detail[:_DETAILS_MAX]:
        if isinstance(item, dict) and isinstance(item.get("loc"), list):
            place = ".".join(str(part)[:100] for part in item["loc"][:20])
            lines.append(f"{place}: {_text(item.get('msg'))}")
    return "; ".join(lines)
