"""The conversation with the model: from the request to a finished app. Called by `main.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from agent.failures import AssignmentFailed
from agent.generator.model import Model, OutOfTime
from agent.generator.order import Order
from agent.generator.progress import Progress
from agent.generator.reply import CUT_OFF, Reply
from agent.generator.toolbox import Result, Toolbox
from orchestrator.contract.bundles import MANIFEST_NAME
from orchestrator.contract.trees import open_plain, walk_files
from orchestrator.contract.wire import FailureCode

EXISTING_LIMIT_CHARS = 120_000
USELESS_ANSWERS = 4
"""After this many answers in a row without a usable tool call the model is given up."""
NO_SUMMARY = "The app is ready."
NO_MORE_ANSWERS = frozenset(
    {
        FailureCode.BUDGET_EXHAUSTED,
        FailureCode.PROVIDER_NO_CREDIT,
        FailureCode.PROVIDER_UNAVAILABLE,
    }
)
"""If the app is healthy by then, it is finished without the model's summary."""

Message = dict[str, Any]


class Conversation:
    """Asks the model, carries out its tool calls and returns the results, until the app is done."""

    def __init__(self, order: Order, *, model: Model, toolbox: Toolbox, progress: Progress) -> None:
        self._order = order
        self._model = model
        self._toolbox = toolbox
        self._progress = progress
        self._messages: list[Message] = []
        self._output_tokens = 0
        self._failed_checks = 0
        self._useless_answers = 0

    def run(self) -> str:
        """Return the summary of the app, which then runs. Raises AssignmentFailed."""
        self._messages = [{"role": "user", "content": first_content(self._order)}]
        limits = self._order.limits
        try:
            for _ in range(limits.turns):
                reply = self._model.answer(self._messages)
                summary = self._handle(reply)
                if summary is not None:
                    return summary
                if self._output_tokens >= limits.output_tokens:
                    return self._end_at_limit(f"{limits.output_tokens} tokens")
        except OutOfTime:
            return self._end_at_limit(f"{limits.seconds:g} seconds")
        except AssignmentFailed as failure:
            if failure.code in NO_MORE_ANSWERS and self._finishes_alone():
                return NO_SUMMARY
            raise
        return self._end_at_limit(f"{limits.turns} turns")

    def _handle(self, reply: Reply) -> str | None:
        """Do what an answer asks for. Return the summary if the app is finished."""
        self._output_tokens += reply.output_tokens
        if reply.stop_reason == "refusal":
            text = reply.text or reply.stop_text or "the model declined this request"
            raise AssignmentFailed(FailureCode.REFUSED, text[:1000])
        answers: list[Message] = []
        calls = reply.calls
        for call in calls:
            result = self._toolbox.carry_out(call)
            if result.summary is not None:
                return result.summary
            self._count_failed_check(result)
            answers.append(_tool_result(call.id, result))
        if not answers and reply.stop_reason == "end_turn" and not self._toolbox.workspace.empty:
            # The model says in words that the app is finished.
            result = self._toolbox.finish(reply.text or NO_SUMMARY)
            if result.summary is not None:
                return result.summary
            self._count_failed_check(result)
            answers.append(_text(result.text))
        hint = _hint(reply, self._order.max_tokens, answered=bool(answers))
        self._count_useless(
            useful=bool(answers) and (not calls or any(call.input is not None for call in calls))
        )
        self._append(reply, [*answers, *([_text(hint)] if hint else [])])
        return None

    def _count_failed_check(self, result: Result) -> None:
        if not result.health_problem:
            return
        self._failed_checks += 1
        if self._failed_checks > self._order.limits.repairs:
            repairs = self._order.limits.repairs
            message = (
                f"The app is still not healthy after {repairs} repairs: {result.health_problem}"
            )
            raise AssignmentFailed(FailureCode.APP_NOT_HEALTHY, f"{message}\n{result.text}"[:2000])
        self._progress.show(f"fixing: {result.health_problem}"[:200])

    def _count_useless(self, *, useful: bool) -> None:
        self._useless_answers = 0 if useful else self._useless_answers + 1
        if self._useless_answers >= USELESS_ANSWERS and not self._failed_checks:
            message = f"the model did nothing of use in {USELESS_ANSWERS} answers"
            raise AssignmentFailed(FailureCode.GENERATION_FAILED, message)

    def _append(self, reply: Reply, answers: list[Message]) -> None:
        """Add the model's answer and ours to the messages of the next request."""
        content = reply.content
        if content:
            self._messages.append({"role": "assistant", "content": content})
            self._messages.append({"role": "user", "content": answers or [_text("Go on.")]})
        else:
            # No block of the answer can be sent back, so our answer joins our last message.
            last = self._messages[-1]
            self._messages[-1] = {**last, "content": [*last["content"], *answers]}

    def _finishes_alone(self) -> bool:
        """Whether the app is complete without another word of the model."""
        return self._toolbox.healthy and self._toolbox.finish(NO_SUMMARY).summary is not None

    def _end_at_limit(self, limit: str) -> str:
        """Finish with the app if it is healthy, otherwise raise AssignmentFailed."""
        if self._finishes_alone():
            return NO_SUMMARY
        message = f"the app wasn't finished within {limit}: ask for something smaller"
        raise AssignmentFailed(FailureCode.GENERATION_FAILED, message)


def first_content(order: Order) -> list[Message]:
    """The first message: the conversation before, the files if there are any, and the request."""
    parts = []
    if order.conversation:
        texts = (f"{message.role}: {message.text}" for message in order.conversation)
        parts.append(_text("The conversation so far:\n\n" + "\n\n".join(texts)))
    files = "".join(_existing_files(order.folder))
    if files:
        parts.append(_text(f"The app as it is:\n\n{files}"))
        parts.append(_text(f"Change it as follows:\n\n{order.request}"))
    else:
        parts.append(_text(order.request))
    return parts


def _existing_files(folder: str) -> Iterator[str]:
    left = EXISTING_LIMIT_CHARS
    for path in sorted(path for path, _ in walk_files(folder)):
        content = _content_of(os.path.join(folder, path))
        if content is None or len(content) > left:
            yield f'<file path="{path}">(not shown: binary or too large)</file>\n'
            continue
        left -= len(content)
        note = " (the manifest)" if path == MANIFEST_NAME else ""
        yield f'<file path="{path}"{note}>\n{content}\n</file>\n'


def _content_of(path: str) -> str | None:
    try:
        with open_plain(path) as source:
            # A character has up to four bytes.
            return source.read(EXISTING_LIMIT_CHARS * 4 + 1).decode()
    except (OSError, UnicodeDecodeError):
        return None


def _hint(reply: Reply, max_tokens: int, *, answered: bool) -> str:
    """What the model should know about its own answer; empty if nothing."""
    if reply.stop_reason in CUT_OFF:
        return (
            f"Your answer was cut off at {max_tokens} tokens; a call that was cut off did nothing."
            " Write smaller files: split them, or write the rest with edit_file."
        )
    if reply.broke_off:
        return "The connection broke off; calls that aren't answered did nothing. Go on."
    if answered:
        return ""
    if reply.has_unfinished_call:
        return "Your tool call was never finished, so nothing was done. Call it again."
    return "Nothing was done: write the app with the tools, then call finish."


def _tool_result(call_id: str, result: Result) -> Message:
    text = _encodable(result.text)
    answer: Message = {"type": "tool_result", "tool_use_id": call_id, "content": text}
    return {**answer, "is_error": True} if result.error else answer


def _text(text: str) -> Message:
    return {"type": "text", "text": _encodable(text)}


def _encodable(text: str) -> str:
    """The text with a question mark for what no request can hold: file names can be any bytes."""
    return text.encode("utf-8", "replace").decode()
