"""Validation of requests, with the errors of the real Messages API. `server.py` calls it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.entrypoints.demo.wire import Json

MODEL = re.compile(r"claude-(fable|mythos|opus|sonnet|haiku)-[0-9p][a-z0-9-]*")  # current families
ROLES = ("user", "assistant", "system")
VERSIONS = ("2026-10-21", "2023-06-01", "2023-01-01")
SAMPLING = ("temperature", "top_p", "top_k")  # refused since version 2026-10-21


class ApiError(Exception):
    """A refused request. `kind` is the API's type of error, `retry_after` is in seconds."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        retry_after: float | None = None,
        *,
        code: str = "",
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.retry_after, self.code = status, kind, retry_after, code


def check_headers(headers: Mapping[str, str], key: str | None) -> None:
    """Raise ApiError unless the headers have the key and a known version. With a `key` of None
    any key is accepted."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    # Since 2.0 the SDK sends the key as a bearer token. Older versions and others use x-api-key.
    client_key = headers.get("x-api-key") or (token if scheme.lower() == "bearer" else "")
    if not client_key:
        raise ApiError(401, "authentication_error", "x-api-key header is required")
    if key is not None and client_key != key:
        raise ApiError(401, "authentication_error", "invalid x-api-key")
    version = headers.get("anthropic-version")
    if version not in VERSIONS:
        fault = f'"{version}" is not a valid version' if version else "header is required"
        raise ApiError(400, "invalid_request_error", f"anthropic-version: {fault}")


def validate_body(body: object, required: tuple[str, ...], version: str) -> Json:
    """Return the body if it is valid. Raises ApiError."""
    fault = _fault(body, required)
    if fault or not isinstance(body, dict):
        raise ApiError(400, "invalid_request_error", fault)
    for field in SAMPLING:
        if field in body and version == VERSIONS[0]:
            raise ApiError(400, "invalid_request_error", f"{field}: Extra inputs are not permitted")
    if not MODEL.fullmatch(body["model"]):
        raise ApiError(404, "not_found_error", f"model: {body['model']}")
    return body


def _fault(body: object, required: tuple[str, ...]) -> str:
    """What is wrong with the body of a request; empty if nothing is."""
    if not isinstance(body, dict):
        return "The request body is not valid JSON"
    for field in required:
        if field not in body:
            return f"{field}: Field required"
    if not isinstance(body["model"], str) or not body["model"]:
        return "model: Input should be a valid string"
    limit = body.get("max_tokens", 1)
    if type(limit) is not int or limit < 1:
        return "max_tokens: Input should be an integer greater than or equal to 1"
    messages = body["messages"]
    if not isinstance(messages, list) or not messages:
        return "messages: at least one message is required"
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return f"messages.{index}.role: Input should be one of {', '.join(ROLES)}"
        content = message.get("content")
        blocks = content if isinstance(content, list) else []
        if not content or not (isinstance(content, str) or all(map(_is_block, blocks))):
            return f"messages.{index}.content: Input should be text or a list of content blocks"
    tools = body.get("tools", [])
    if not isinstance(tools, list) or not all(map(_is_tool, tools)):
        return "tools: Input should be a list of tools with a name"
    for index, tool in enumerate(tools):
        if tool.get("type", "custom") == "custom" and not isinstance(
            tool.get("input_schema"), dict
        ):
            return f"tools.{index}.custom.input_schema: Field required"
    return _conversation_fault(messages)


def _conversation_fault(messages: list[Json]) -> str:
    """What is wrong with the tool calls; empty if nothing is. The message after a call must have
    its result and no others."""
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        blocks = message["content"] if isinstance(message["content"], list) else []
        results = {block.get("tool_use_id") for block in blocks if block["type"] == "tool_result"}
        if open_calls - results:
            return f"messages.{index}: `tool_use` ids were found without `tool_result` blocks"
        if results - open_calls:
            return f"messages.{index}: unexpected `tool_use_id` found in `tool_result` blocks"
        open_calls = {block["id"] for block in blocks if block["type"] == "tool_use"}
        if message["role"] == "assistant" and blocks and blocks[-1]["type"] == "thinking":
            return f"messages.{index}: The final block in an assistant message cannot be `thinking`"
    return ""


def _is_tool(tool: object) -> bool:
    return isinstance(tool, dict) and "name" in tool


def _is_block(block: object) -> bool:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        return False
    return block["type"] != "text" or isinstance(block.get("text"), str)
