"""The conversation from the user's wish to a finished app. Called by `main.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from agent.generator.model import Model, OutOfTime
from agent.generator.order import Order
from agent.generator.progress import Progress
from agent.generator.reply import CUT_OFF, Reply
from agent.generator.toolbox import Result, Toolbox
from agent.layout import MANIFEST_NAME
from agent.protocol import AssignmentFailed, FailureCode

EXISTING_LIMIT_CHARS = 120_000
FRUITLESS_TURNS = 4
"""So many answers in a row without a tool call that makes sense are the end."""
NO_SUMMARY = "The app is ready."
NO_MORE_ANSWERS = frozenset({FailureCode.BUDGET_EXHAUSTED, FailureCode.PROVIDER_UNAVAILABLE})
"""An app that is in good health by then is worth more than the last words about it."""

Message = dict[str, Any]


class Conversation:
    """Asks, carries out what the model calls, and tells it what came of it, until it is done."""

    def __init__(self, order: Order, *, model: Model, toolbox: Toolbox, progress: Progress) -> None:
        self._order = order
        self._model = model
        self._toolbox = toolbox
        self._progress = progress
        self._messages: list[Message] = []
        self._output_tokens = 0
        self._bad_healths = 0
        self._fruitless = 0

    def run(self) -> str:
        """The summary of the app that runs now. Raises AssignmentFailed."""
        self._messages = [{"role": "user", "content": first_content(self._order)}]
        limits = self._order.limits
        try:
            for _ in range(limits.turns):
                reply = self._model.answer(self._messages)
                summary = self._take(reply)
                if summary is not None:
                    return summary
                if self._output_tokens >= limits.output_tokens:
                    return self._settle(f"{limits.output_tokens} tokens")
        except OutOfTime:
            return self._settle(f"{limits.seconds:g} seconds")
        except AssignmentFailed as failure:
            if failure.code in NO_MORE_ANSWERS and self._toolbox.healthy:
                return NO_SUMMARY
            raise
        return self._settle(f"{limits.turns} turns")

    def _take(self, reply: Reply) -> str | None:
        """Do what an answer asks for. Returns the summary when the app is finished."""
        self._output_tokens += reply.output_tokens
        if reply.stop_reason == "refusal":
            said = reply.text or reply.stop_text or "the model declined this request"
            raise AssignmentFailed(FailureCode.REFUSED, said[:1000])
        answers: list[Message] = []
        calls = reply.calls
        for call in calls:
            result = self._toolbox.carry_out(call)
            if result.summary is not None:
                return result.summary
            self._note_health(result)
            answers.append(_tool_result(call.id, result))
        if not answers and reply.stop_reason == "end_turn" and not self._toolbox.workspace.empty:
            # It takes the app for finished and says so in words.
            result = self._toolbox.finish(reply.text or NO_SUMMARY)
            if result.summary is not None:
                return result.summary
            self._note_health(result)
            answers.append(_text(result.text))
        hint = _hint(reply, self._order.max_tokens, answered=bool(answers))
        self._count_fruitless(
            fruitful=bool(answers) and (not calls or any(call.input is not None for call in calls))
        )
        self._go_on(reply, [*answers, *([_text(hint)] if hint else [])])
        return None

    def _note_health(self, result: Result) -> None:
        if not result.bad_health:
            return
        self._bad_healths += 1
        if self._bad_healths > self._order.limits.repairs:
            rounds = self._order.limits.repairs
            message = f"The app is still not healthy after {rounds} repairs: {result.bad_health}"
            raise AssignmentFailed(FailureCode.APP_NOT_HEALTHY, f"{message}\n{result.text}"[:2000])
        self._progress.at(f"mending: {result.bad_health}"[:200])

    def _count_fruitless(self, *, fruitful: bool) -> None:
        self._fruitless = 0 if fruitful else self._fruitless + 1
        if self._fruitless >= FRUITLESS_TURNS and not self._bad_healths:
            message = f"the model did nothing of use in {FRUITLESS_TURNS} answers"
            raise AssignmentFailed(FailureCode.GENERATION_FAILED, message)

    def _go_on(self, reply: Reply, answers: list[Message]) -> None:
        said = reply.content
        if said:
            self._messages.append({"role": "assistant", "content": said})
            self._messages.append({"role": "user", "content": answers or [_text("Go on.")]})
        else:
            # Nothing of the answer can go back, so what we have to say joins our last words.
            last = self._messages[-1]
            self._messages[-1] = {**last, "content": [*last["content"], *answers]}

    def _settle(self, spent: str) -> str:
        """The limits are reached: take the app if it is good as it is."""
        if self._toolbox.healthy:
            return NO_SUMMARY
        message = f"the app wasn't finished within {spent}: ask for something smaller"
        raise AssignmentFailed(FailureCode.GENERATION_FAILED, message)


def first_content(order: Order) -> list[Message]:
    """What was said before, the files if there are any, and the wish."""
    parts = []
    if order.conversation:
        said = "\n\n".join(f"{one.role}: {one.text}" for one in order.conversation)
        parts.append(_text(f"The conversation so far:\n\n{said}"))
    files = "".join(_existing_files(order.folder))
    if files:
        parts.append(_text(f"The app as it is:\n\n{files}"))
        parts.append(_text(f"Change it as follows:\n\n{order.wish}"))
    else:
        parts.append(_text(order.wish))
    return parts


def _existing_files(folder: str) -> Iterator[str]:
    left = EXISTING_LIMIT_CHARS
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            content = _content_of(path)
            shown = os.path.relpath(path, folder)
            if content is None or len(content) > left:
                yield f'<file path="{shown}">(not shown: binary or too large)</file>\n'
                continue
            left -= len(content)
            note = " (the manifest)" if shown == MANIFEST_NAME else ""
            yield f'<file path="{shown}"{note}>\n{content}\n</file>\n'


def _content_of(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as source:
            return source.read(EXISTING_LIMIT_CHARS + 1)
    except (OSError, UnicodeDecodeError):
        return None


def _hint(reply: Reply, max_tokens: int, *, answered: bool) -> str:
    """What the model should know about its own answer."""
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
    """File names can be any bytes; what no request can hold becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
