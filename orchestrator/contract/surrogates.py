"""Makes whole characters of the halves that JSON can name. Used where pieces of text are joined.

JavaScript counts in halves of UTF-16: a service written in it may end a piece of its answer in the
middle of an emoji. Each half is then a character of its own, which no request and no file can hold.
"""

from __future__ import annotations


def paired(text: str) -> str:
    """The text with each pair of halves as the one character that it means. A half that is alone
    becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def ends_in_half(text: str) -> bool:
    """Whether the second half of the last character may still come."""
    return "\ud800" <= text[-1:] <= "\udbff"
