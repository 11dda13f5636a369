"""Translates a Messages API request into an OpenAI chat completion request. Pure.

Called by the gateway for its last provider. Features that OpenAI lacks are left out if the answer
stays the same without them (thinking, cache marks). All others are refused. Thoughts of the
endpoint itself go back to it.

Source: OpenAI's reference of `POST /chat/completions`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.domain import errors
from orchestrator.domain.llm import thoughts, tool_ids

Json = dict[str, Any]

_STOPS_MAX = 4
_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
# Gemini signs calls with what it thought, and refuses a conversation in which the first call of an
# answer is not signed. Answers of the Messages API have no place for that; this, by its reference,
# stands for the signature of a call that another model made.
_SIGNS_CALLS = "gemini"
_SIGNATURE = {"google": {"thought_signature": "skip_thought_signature_validator"}}
# These refuse a conversation in which an answer has no thoughts, also if another model gave it. An
# empty text counts as none.
_WANTS_THOUGHTS = ("deepseek", "kimi")
_NO_THOUGHT = {"reasoning_content": " "}
_SILENT = frozenset({"thinking", "redacted_thinking"})


def translate(body: Mapping[str, Any], *, model: str, limit_field: str) -> Json:
    """The request for `model`. `limit_field` is the endpoint's name for the limit of output tokens.

    Raises errors.InvalidInput (untranslatable), which names the feature that can't be translated.
    """
    try:
        return _build_request(body, model, limit_field)
    except (KeyError, TypeError, AttributeError) as error:
        raise _untranslatable("a request that isn't one of the Messages API") from error


def _build_request(body: Mapping[str, Any], model: str, limit_field: str) -> Json:
    messages = _messages(tool_ids.for_completions(body))
    if _SIGNS_CALLS in model.lower():
        messages = [_signed(message) for message in messages]
    if any(name in model.lower() for name in _WANTS_THOUGHTS):
        messages = [_with_thought(message) for message in messages]
    request: Json = {"model": model, "messages": messages}
    request[limit_field] = body["max_tokens"]
    for name in ("temperature", "top_p"):
        if body.get(name) is not None:
            request[name] = body[name]
    if body.get("stop_sequences"):
        request["stop"] = _stops(body["stop_sequences"])
    if body.get("tools"):
        request["tools"] = [_tool(tool) for tool in body["tools"]]
        request.update(_tool_choice(body.get("tool_choice")))
    shape = (body.get("output_config") or {}).get("format") or body.get("output_format")
    if shape:
        request["response_format"] = _response_format(shape)
    if body.get("stream") is True:
        request["stream"] = True
        request["stream_options"] = {"include_usage": True}
    return request


def _messages(body: Mapping[str, Any]) -> list[Json]:
    messages: list[Json] = []
    if body.get("system"):
        messages.append({"role": "system", "content": _text(body["system"], "system")})
    for message in body["messages"]:
        role, content = message.get("role"), message.get("content")
        if role == "assistant":
            messages.append(_assistant(content))
        elif role == "user":
            messages.extend(_user(content))
        elif role == "system":
            messages.append({"role": "system", "content": _text(content, "system")})
        else:
            raise _untranslatable(f"the role {role}")
    return messages


def _assistant(content: object) -> Json:
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    texts, calls = [], []
    thought: Json = {}
    for block in _blocks(content):
        if field := thoughts.field_of(block):
            thought[field] = thought.get(field, "") + block["thinking"]
        elif block["type"] == "text":
            texts.append(block["text"])
        elif block["type"] == "tool_use":
            function = {"name": block["name"], "arguments": json.dumps(block["input"])}
            calls.append({"id": block["id"], "type": "function", "function": function})
        elif block["type"] not in _SILENT:
            raise _untranslatable(f"{block['type']} blocks")
    text = "".join(texts)
    if calls:
        return {"role": "assistant", "content": text or None, "tool_calls": calls, **thought}
    return {"role": "assistant", "content": text, **thought}


def _signed(message: Json) -> Json:
    """The message; if it has calls, its first one is signed."""
    if not message.get("tool_calls"):
        return message
    first, *others = message["tool_calls"]
    return {**message, "tool_calls": [{**first, "extra_content": _SIGNATURE}, *others]}


def _with_thought(message: Json) -> Json:
    """The message; if it is an answer without thoughts, with a text in their place."""
    is_bare = message["role"] == "assistant" and not any(
        name in message for name in thoughts.FIELDS
    )
    return {**message, **_NO_THOUGHT} if is_bare else message


def _user(content: object) -> Iterable[Json]:
    """Tool results become messages of their own, before the rest of the content."""
    if isinstance(content, str):
        yield {"role": "user", "content": content}
        return
    parts: list[Json] = []
    for block in _blocks(content):
        if block["type"] == "tool_result":
            result, pictures = _tool_result(block)
            parts += pictures
            yield result
        else:
            parts.append(_part(block))
    if parts:
        plain = len(parts) == 1 and parts[0]["type"] == "text"
        yield {"role": "user", "content": parts[0]["text"] if plain else parts}


def _tool_result(block: Mapping[str, Any]) -> tuple[Json, Sequence[Json]]:
    """The message with its text, and the parts that OpenAI takes from users alone: pictures."""
    content = block.get("content") or ""
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else _blocks(content)
    parts = [_part(part) for part in blocks]
    pictures = [part for part in parts if part["type"] != "text"]
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    if pictures:
        title = f"Pictures of the tool result {block['tool_use_id']}:"
        pictures.insert(0, {"type": "text", "text": title})
        text = text or "The pictures follow."
    if block.get("is_error"):
        text = f"Error: {text}"  # OpenAI has no flag for it
    return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": text}, pictures


def _part(block: Mapping[str, Any]) -> Json:
    if block["type"] == "text":
        return {"type": "text", "text": block["text"]}
    if block["type"] == "tool_reference":  # the client has added it to its tools
        return {"type": "text", "text": f"The tool {block['tool_name']} can be called now."}
    source = block.get("source") or {}
    if block["type"] == "document" and source.get("type") == "text":
        return {"type": "text", "text": source["data"]}
    if block["type"] == "image" and source.get("type") == "base64":
        url = f"data:{source['media_type']};base64,{source['data']}"
        return {"type": "image_url", "image_url": {"url": url}}
    raise _untranslatable(f"{block['type']} blocks of source {source.get('type')}")


def _text(content: object, place: str) -> str:
    if isinstance(content, str):
        return content
    blocks = _blocks(content)
    if any(block["type"] != "text" for block in blocks):
        raise _untranslatable(f"anything but text in {place}")
    return "\n".join(block["text"] for block in blocks)


def _blocks(content: object) -> Sequence[Mapping[str, Any]]:
    if not isinstance(content, list) or not all(
        isinstance(block, dict) and "type" in block for block in content
    ):
        raise _untranslatable("content that is neither text nor blocks")
    return content


def _tool(tool: Mapping[str, Any]) -> Json:
    if tool.get("type") not in {None, "custom"}:
        raise _untranslatable(f"the tool {tool['type']}, which only Anthropic describes")
    function: Json = {"name": tool["name"], "parameters": tool["input_schema"]}
    for name in ("description", "strict"):
        if name in tool:
            function[name] = tool[name]
    return {"type": "function", "function": function}


def _tool_choice(choice: Mapping[str, Any] | None) -> Json:
    if choice is None:
        return {}
    fields: Json = {}
    if choice.get("type") == "tool":
        fields["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif choice.get("type") in _TOOL_CHOICES:
        fields["tool_choice"] = _TOOL_CHOICES[choice["type"]]
    else:
        raise _untranslatable(f"the tool_choice {choice.get('type')}")
    if choice.get("disable_parallel_tool_use"):
        fields["parallel_tool_calls"] = False
    return fields


def _stops(stops: Sequence[str]) -> list[str]:
    if len(stops) > _STOPS_MAX:
        raise _untranslatable(f"more than {_STOPS_MAX} stop sequences")
    return list(stops)


def _response_format(shape: Mapping[str, Any]) -> Json:
    if shape.get("type") != "json_schema":
        raise _untranslatable(f"the output format {shape.get('type')}")
    schema = {"name": "answer", "schema": shape["schema"], "strict": True}
    return {"type": "json_schema", "json_schema": schema}


def _untranslatable(feature: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"{feature} can't be translated for an OpenAI-compatible endpoint", code="untranslatable"
    )
