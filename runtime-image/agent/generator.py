"""The generator: one conversation with the model, ending in files or a failure. Its own process.

Started by `generation.py` for assignments of kind generate. Reads its order, session token
included, as one line on standard input; says on standard output, a JSON object on each line:
`{"event":"progress","progress":31..89,"message":str}`, then `{"event":"result"}` or
`{"event":"error","code":str,"message":str}`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

import anthropic
import httpx2

from agent.generator_input import TOOL, TOOL_NAME, Order, first_message, parse_order, system_prompt
from agent.generator_output import (
    FilesInvalid,
    GeneratedApp,
    StreamProgress,
    parse_tool_input,
    write,
)
from agent.protocol import AssignmentFailed, FailureCode

MAX_RETRIES = 2
SILENCE_LIMIT_S = 180.0
"""The API sends pings while a model thinks, so this much silence is a dead connection."""
AUTH_ERRORS = frozenset({"authentication_error", "permission_error", "billing_error"})
PASSING_ERRORS = frozenset({"rate_limit_error", "overloaded_error", "api_error", "timeout_error"})


class _Reply:
    """The assistant's message, put together from the stream."""

    def __init__(self) -> None:
        self.content: list[dict[str, Any]] = []
        self.stop_reason: str | None = None
        self._tool_json: dict[int, str] = {}

    def feed(self, event: dict[str, Any]) -> str:
        """Take one event; return the piece of tool input that it brought, mostly empty."""
        if event["type"] == "content_block_start":
            self.content.append(dict(event["content_block"]))
        elif event["type"] == "message_delta":
            self.stop_reason = event["delta"].get("stop_reason") or self.stop_reason
        elif event["type"] == "content_block_delta":
            return self._feed_delta(event["index"], event["delta"])
        return ""

    def _feed_delta(self, index: int, delta: dict[str, Any]) -> str:
        block = self.content[index]
        if delta["type"] == "input_json_delta":
            # Parsed once at the end: the SDK's own helper parses all of it again at every piece.
            self._tool_json[index] = self._tool_json.get(index, "") + delta["partial_json"]
            return str(delta["partial_json"])
        for field, mode in (("text", "add"), ("thinking", "add"), ("signature", "set")):
            if delta["type"] == f"{field}_delta":
                before = block.get(field) or "" if mode == "add" else ""
                block[field] = before + delta[field]
        return ""

    def tool_use(self) -> dict[str, Any] | None:
        """The call of our tool with its input decoded; an input that is no JSON becomes None."""
        for index, block in enumerate(self.content):
            if block["type"] == "tool_use" and block["name"] == TOOL_NAME:
                if index in self._tool_json:
                    block["input"] = _decoded(self._tool_json[index])
                return block
        return None


def main() -> None:
    order = parse_order(sys.stdin.readline())
    try:
        write(converse(order), order.folder)
    except AssignmentFailed as failure:
        _emit(event="error", code=str(failure.code), message=failure.message)
    else:
        _emit(event="result")


def converse(order: Order) -> GeneratedApp:
    """Ask once; if the answer can't be used, say why and ask once more. Raises AssignmentFailed."""
    client = anthropic.Anthropic(
        api_key=order.token,
        base_url="http://home",
        max_retries=MAX_RETRIES,
        timeout=httpx2.Timeout(SILENCE_LIMIT_S, connect=10.0),
        http_client=httpx2.Client(transport=httpx2.HTTPTransport(uds=order.socket)),
    )
    with client:
        try:
            return _ask_twice(client, order)
        except FilesInvalid as error:
            message = f"the model wrote no usable app, also when asked again: {error}"
            raise AssignmentFailed(FailureCode.GENERATION_FAILED, message) from error
        except anthropic.APIError as error:
            raise translate(error) from error
        except httpx2.HTTPError as error:
            message = f"the connection to the model broke off: {type(error).__name__}"
            raise AssignmentFailed(FailureCode.PROVIDER_UNAVAILABLE, message) from error


def _ask_twice(client: anthropic.Anthropic, order: Order) -> GeneratedApp:
    progress = StreamProgress()
    messages: list[Any] = [{"role": "user", "content": first_message(order)}]
    reply = _ask(client, order, messages, progress)
    try:
        return _usable(reply, order)
    except FilesInvalid as error:
        messages += correction(reply.content, reply.tool_use(), str(error))
    return _usable(_ask(client, order, messages, progress), order)


def _ask(
    client: anthropic.Anthropic, order: Order, messages: list[Any], progress: StreamProgress
) -> _Reply:
    forced: Any = {"type": "tool", "name": TOOL_NAME, "disable_parallel_tool_use": True}
    try:
        return _stream(client, order, messages, progress, forced)
    except anthropic.BadRequestError as error:
        # Models that always think refuse a forced tool; the system prompt asks for the call too.
        if "tool_choice" not in str(error) and "thinking" not in str(error):
            raise
        return _stream(client, order, messages, progress, {"type": "auto"})


def _stream(
    client: anthropic.Anthropic,
    order: Order,
    messages: list[Any],
    progress: StreamProgress,
    tool_choice: Any,
) -> _Reply:
    system: Any = [
        {"type": "text", "text": system_prompt(), "cache_control": {"type": "ephemeral"}}
    ]
    tools: Any = [TOOL]
    reply = _Reply()
    said: tuple[int, str] | None = None
    with client.messages.create(
        model=order.model,
        max_tokens=order.max_tokens,
        system=system,
        messages=messages,
        tools=tools,
        tool_choice=tool_choice,
        stream=True,
    ) as stream:
        for event in stream:
            piece = reply.feed(event.to_dict())
            now = progress.feed(piece) if piece else said
            if now is not None and now != said:
                said = now
                _emit(event="progress", **_fields(now))
    return reply


def _usable(reply: _Reply, order: Order) -> GeneratedApp:
    """The app in the reply. Raises FilesInvalid if asking again may help."""
    if reply.stop_reason is None:
        message = "the model's answer broke off"
        raise AssignmentFailed(FailureCode.PROVIDER_UNAVAILABLE, message)
    if reply.stop_reason == "refusal":
        raise AssignmentFailed(FailureCode.REFUSED, "the model declined this request")
    if reply.stop_reason in ("max_tokens", "model_context_window_exceeded"):
        message = f"the app didn't fit into {order.max_tokens} tokens: ask for something smaller"
        raise AssignmentFailed(FailureCode.GENERATION_FAILED, message)
    call = reply.tool_use()
    if call is None:
        raise FilesInvalid(f"there was no call of {TOOL_NAME}; answer with that call only")
    if call["input"] is None:
        raise FilesInvalid("the input was not valid JSON")
    return parse_tool_input(call["input"], _existing(order.folder))


def correction(
    content: list[dict[str, Any]], call: dict[str, Any] | None, problem: str
) -> list[dict[str, Any]]:
    """The two messages that tell the model what was wrong with its answer."""
    # Everything it said goes back, thinking blocks above all: the API insists on them.
    answer = [
        {**block, "input": block["input"] or {}} if block is call else block for block in content
    ]
    text = f"Nothing was written: {problem}. Call {TOOL_NAME} again with the whole app."
    if call is None:
        says: list[dict[str, Any]] = [{"type": "text", "text": text}]
    else:
        says = [
            {"type": "tool_result", "tool_use_id": call["id"], "is_error": True, "content": text}
        ]
    turns: list[dict[str, Any]] = [{"role": "assistant", "content": answer}] if answer else []
    return [*turns, {"role": "user", "content": says}]


def translate(error: anthropic.APIError) -> AssignmentFailed:
    """The protocol's failure for what the SDK raised after its own retries."""
    if not isinstance(error, anthropic.APIStatusError):
        message = f"no connection to the model: {error.message}"
        return AssignmentFailed(FailureCode.PROVIDER_UNAVAILABLE, message)
    kind, status = error.type, error.status_code
    said = str(error.api_message or kind or f"status {status}")[:500]
    if kind in AUTH_ERRORS or status in (401, 402, 403):
        return AssignmentFailed(FailureCode.PROVIDER_AUTH, f"the model refused our key: {said}")
    # An error within the stream comes with status 200.
    if kind in PASSING_ERRORS or status in (408, 409, 429) or status >= 500:
        return AssignmentFailed(FailureCode.PROVIDER_UNAVAILABLE, f"the model is busy: {said}")
    return AssignmentFailed(FailureCode.GENERATION_FAILED, f"the model refused the request: {said}")


def _existing(folder: str) -> Iterable[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield os.path.relpath(os.path.join(parent, name), folder)


def _decoded(text: str) -> object:
    try:
        return json.loads(text) if text else {}
    except ValueError:
        return None


def _fields(progress: tuple[int, str]) -> dict[str, Any]:
    return {"progress": progress[0], "message": progress[1]}


def _emit(**fields: object) -> None:
    print(json.dumps(fields), flush=True)
