"""Thoughts of OpenAI-compatible endpoints in a conversation: who gets them back."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain.llm import thoughts

TEXT = {"type": "text", "text": "Hello"}
USER = {"role": "user", "content": "Hello"}


def thought(signature: Any) -> dict[str, Any]:
    return {"type": "thinking", "thinking": "Hm.", "signature": signature}


OURS = thought(thoughts.signature("reasoning"))
ANTHROPICS = thought("EqQBCgIYAhIM")


@pytest.mark.parametrize("field", thoughts.FIELDS)
def test_a_block_says_in_which_field_its_thoughts_were(field: str) -> None:
    assert thoughts.field_of(thought(thoughts.signature(field))) == field


@pytest.mark.parametrize("signature", ["", None, 5, "reasoning", "oai-", "oai-content", "EqQB"])
def test_no_other_signature_names_a_field(signature: Any) -> None:
    assert thoughts.field_of(thought(signature)) is None
    assert thoughts.field_of({**OURS, "type": "text"}) is None


def test_the_messages_api_gets_only_its_own_thoughts_back() -> None:
    answer = {"role": "assistant", "content": [OURS, ANTHROPICS, TEXT, "odd"]}
    body = {"model": "m", "messages": [USER, answer]}
    kept = {"role": "assistant", "content": [ANTHROPICS, TEXT, "odd"]}
    assert thoughts.for_messages(body) == {"model": "m", "messages": [USER, kept]}


def test_an_answer_of_such_thoughts_alone_is_left_out() -> None:
    messages = [USER, {"role": "assistant", "content": [OURS]}, USER]
    assert thoughts.for_messages({"messages": messages}) == {"messages": [USER, USER]}


@pytest.mark.parametrize(
    "messages", ["odd", None, [], ["odd", USER, {"role": "assistant", "content": [ANTHROPICS]}]]
)
def test_a_conversation_without_them_stays_the_same_object(messages: Any) -> None:
    body = {"messages": messages}
    assert thoughts.for_messages(body) is body
