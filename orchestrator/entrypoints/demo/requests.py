"""What a Messages API accepts, and how it turns down the rest. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.entrypoints.demo.wire import Json

MODEL = re.compile(r"claude-(fable|mythos|opus|sonnet|haiku)-[0-9p][a-z0-9-]*")  # current families
ROLES = ("user", "assistant", "system")
VERSIONS = ("2026-10-21", "2023-06-01", "2023-01-01")
SAMPLING = ("temperature", "top_p", "top_k")  # no longer taken since 2026-10-21


class ApiError(Exception):
    """A request that is turned down."""

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
    """Raise ApiError unless there is the key (any, if None is asked for) and a known version."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    # The SDK sends the key as a bearer token since its 2.0; before, and elsewhere, as x-api-key.
    given = headers.get("x-api-key") or (token if scheme.lower() == "bearer" else "")
    if not given:
        raise ApiError(401, "authentication_error", "x-api-key header is required")
    if key is not None and given != key:
        raise ApiError(401, "authentication_error", "invalid x-api-key")
    version = headers.get("anthropic-version")
    if version not in VERSIONS:
        fault = f'"{version}" is not a valid version' if version else "header is required"
        raise ApiError(400, "invalid_request_error", f"anthropic-version: {fault}")


def checked(body: object, required: tuple[str, ...], version: str) -> Json:
    """The body of a request. Raises ApiError."""
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
    """Say what is wrong with a request's body, or nothing."""
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
    for at, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return f"messages.{at}.role: Input should be one of {', '.join(ROLES)}"
        content = message.get("content")
        blocks = content if isinstance(content, list) else []
        if not content or not (isinstance(content, str) or all(map(_is_block, blocks))):
            return f"messages.{at}.content: Input should be text or a list of content blocks"
    tools = body.get("tools", [])
    if not isinstance(tools, list) or not all(isinstance(t, dict) and "name" in t for t in tools):
        return "tools: Input should be a list of tools with a name"
    for at, tool in enumerate(tools):
        if tool.get("type", "custom") == "custom" and not isinstance(
            tool.get("input_schema"), dict
        ):
            return f"tools.{at}.custom.input_schema: Field required"
    return _conversation_fault(messages)


def _conversation_fault(messages: list[Json]) -> str:
    """Whether each tool call of the assistant is answered in the message after it, and no other."""
    open_calls: set[str] = set()
    for at, message in enumerate(messages):
        blocks = message["content"] if isinstance(message["content"], list) else []
        results = {b.get("tool_use_id") for b in blocks if b["type"] == "tool_result"}
        if open_calls - results:
            return f"messages.{at}: `tool_use` ids were found without `tool_result` blocks"
        if results - open_calls:
            return f"messages.{at}: unexpected `tool_use_id` found in `tool_result` blocks"
        open_calls = {b["id"] for b in blocks if b["type"] == "tool_use"}
        if message["role"] == "assistant" and blocks and blocks[-1]["type"] == "thinking":
            return f"messages.{at}: The final block in an assistant message cannot be `thinking`"
    return ""


def _is_block(block: object) -> bool:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        return False
    return block["type"] != "text" or isinstance(block.get("text"), str)
