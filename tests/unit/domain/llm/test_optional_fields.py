"""Fields that an endpoint doesn't know: which are left out, and which are not."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain.llm import optional_fields

CACHED = {"type": "ephemeral"}
BODY: dict[str, Any] = {
    "model": "m",
    "system": [{"type": "text", "text": "s", "cache_control": CACHED}],
    "tools": [{"name": "f", "eager_input_streaming": True, "cache_control": CACHED}, {"name": "g"}],
    "thinking": {"type": "enabled"},
    "metadata": {"user_id": "u"},
    "messages": [
        {"role": "user", "content": "Hello"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm."},
                {"type": "text", "text": "thinking about cache_control"},
            ],
        },
    ],
}
EXTRA = "Extra inputs are not permitted"
PARTS = {"type": "ephemeral", "ttl": "1h", "scope": "global", "typo": 1}


def cached_as(asked: dict[str, Any]) -> dict[str, Any]:
    """A body with this wherever the API takes `cache_control`; the same names are elsewhere too."""
    text = {"type": "text", "text": "s", "cache_control": asked}
    result = {"type": "tool_result", "content": [text], "cache_control": asked}
    return {
        **PARTS,
        "cache_control": asked,
        "system": [text],
        "tools": [{"name": "f", "input_schema": PARTS, "cache_control": asked}],
        "messages": [{"role": "user", "content": [text, result]}],
    }


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (f"tools.0.custom.eager_input_streaming: {EXTRA}", "eager_input_streaming"),
        (f"messages.0.content.0.cache_control: {EXTRA}", "cache_control"),
        ('json: unknown field "cache_control"', "cache_control"),
        ("unknown field `metadata`, expected one of `model`, `cache_control`", "metadata"),
        ("'messages.0': property 'cache_control' is unsupported", "cache_control"),
        ("Additional properties are not allowed ('metadata' was unexpected)", "metadata"),
        ("Unrecognized request argument supplied: thinking", "thinking"),
        ("Input tag 'thinking' does not match any of the expected tags: 'text'", "thinking"),
        ("This model does not support cache_control", "cache_control"),
        ("tools.0.eager_input_streaming: property is not supported", "eager_input_streaming"),
        ("Invalid field: eager_input_streaming", "eager_input_streaming"),
        ("no such field: cache_control", "cache_control"),
        ('Unknown name "cacheControl": Cannot find field.', "cache_control"),
        ("adaptive thinking is not supported on this model", "thinking"),
        # In words that nobody knows, but of one field alone.
        ("cache_control? Never heard of it", "cache_control"),
        ("neither cache_control nor metadata, please", None),
        # The value is wrong, or a field within it.
        (f"tools.0.cache_control.ttl: {EXTRA}", None),
        ("A maximum of 4 blocks with cache_control may be provided", None),
        ("thinking.type: adaptive thinking is not supported", None),
        # It can't be left out, it isn't there, or it is part of another name.
        (f"temperature: {EXTRA}", None),
        (f"service_tier: {EXTRA}", None),
        (f"tools.0.my_cache_control_x: {EXTRA}", None),
        ("", None),
    ],
)
def test_the_field_that_is_unknown_is_read_from_the_message(
    message: str, field: str | None
) -> None:
    assert optional_fields.refused_in(message, BODY) == field


@pytest.mark.parametrize(
    ("message", "is_lesson"),
    [
        (f"cache_control: {EXTRA}", True),
        ("This model does not support cache_control", True),
        ("adaptive thinking is not supported on this model", False),
        ("cache_control? Never heard of it", False),
        ("metadata: unexpected length, must be at most 9", False),
    ],
)
def test_others_go_without_a_field_only_if_it_is_the_field_that_is_unknown(
    message: str, is_lesson: bool
) -> None:
    assert optional_fields.refused_in(message, BODY)
    assert optional_fields.is_lesson(message) is is_lesson


def test_a_field_is_left_out_wherever_the_api_takes_it() -> None:
    body = optional_fields.without(BODY, ["cache_control", "eager_input_streaming", "thinking"])
    assert body == {
        "model": "m",
        "system": [{"type": "text", "text": "s"}],
        "tools": [{"name": "f"}, {"name": "g"}],
        "metadata": {"user_id": "u"},
        "messages": [
            {"role": "user", "content": "Hello"},
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "thinking about cache_control"}],
            },
        ],
    }
    assert optional_fields.without(BODY, []) == BODY


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (f"messages.0.content.0.text.cache_control.ephemeral.ttl: {EXTRA}", "ttl"),
        (f"system.0.cache_control.ephemeral.scope: {EXTRA}", "scope"),
        (f"tools.0.custom.cache_control: {EXTRA}", "cache_control"),
        ("cache_control.ephemeral.ttl: Input should be '5m' or '1h'", None),
        ("cache_control.ttl: a block with ttl='1h' must not come after one with '5m'", None),
        (f"cache_control.ephemeral.typo: {EXTRA}", None),
    ],
)
def test_of_what_says_how_to_cache_only_the_unknown_part_is_left_out(
    message: str, field: str | None
) -> None:
    assert optional_fields.refused_in(message, cached_as(PARTS)) == field


@pytest.mark.parametrize("field", ["ttl", "scope"])
def test_how_to_cache_is_left_out_wherever_the_api_takes_it(field: str) -> None:
    others = {name: value for name, value in PARTS.items() if name != field}
    assert optional_fields.without(cached_as(PARTS), [field]) == cached_as(others)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "cache_control": CACHED, "content": "x"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "thinking", "cache_control": CACHED}]}
            ]
        },
        {"tools": [{"name": "f", "input_schema": {"cache_control": CACHED}}]},
        {"tools": {"cache_control": CACHED}},
        {"system": "cache_control"},
    ],
    ids=str,
)
def test_a_field_where_the_api_takes_none_stays_in(fields: dict[str, Any]) -> None:
    assert optional_fields.without({"model": "m", **fields}, ["cache_control"]) == {
        "model": "m",
        **fields,
    }


@pytest.mark.parametrize(
    ("config", "message", "left"),
    [
        ({"effort": "low"}, f"output_config: {EXTRA}", None),
        ({"effort": "low"}, f"output_config.effort: {EXTRA}", {}),
        ({"effort": "low", "format": {}}, f"output_config.effort: {EXTRA}", {"format": {}}),
        ({"effort": "low", "format": {}}, f"output_config: {EXTRA}", ...),
        ({"effort": "low"}, "output_config.effort: Input should be 'high' or 'medium'", ...),
    ],
)
def test_how_hard_a_model_should_try_may_be_left_out_and_the_format_of_its_answer_not(
    config: dict[str, Any], message: str, left: Any
) -> None:
    body = {"model": "m", "output_config": config}
    field = optional_fields.refused_in(message, body)
    assert (field is None) is (left is ...)
    if field is not None:
        assert optional_fields.without(body, [field]).get("output_config") == left
