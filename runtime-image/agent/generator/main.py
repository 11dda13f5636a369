"""The generator's process, from its order to its last message. Started by `agent/__main__.py`."""

from __future__ import annotations

import os
import sys
import time

import anthropic
import httpx2

from agent.failures import AssignmentFailed
from agent.generator.channel import Channel
from agent.generator.checker import Checker
from agent.generator.conversation import Conversation
from agent.generator.model import SILENCE_LIMIT_S, Clock, Model
from agent.generator.order import Order, parse_order
from agent.generator.progress import Progress
from agent.generator.toolbox import Toolbox
from agent.generator.workspace import Workspace

CONNECT_LIMIT_S = 10.0


def main() -> None:
    """Read the order, make the app, send the result."""
    channel = Channel(sys.stdin, sys.stdout)
    order = parse_order(channel.read_order())
    try:
        summary = generate(order, channel, Clock(now=time.monotonic, sleep=time.sleep))
    except AssignmentFailed as failure:
        channel.send("error", code=str(failure.code), message=failure.message)
    else:
        channel.send("result", summary=summary)
    sys.stdout.flush()
    os._exit(0)  # don't wait for the SDK's threads and sockets


def generate(order: Order, channel: Channel, clock: Clock) -> str:
    """Have the model make the app; return its summary. Raises AssignmentFailed."""
    progress = Progress(
        expected_tokens=order.expected_output_tokens,
        on_change=lambda percent, message: channel.send(
            "progress", progress=percent, message=message
        ),
    )
    workspace = Workspace(order.folder, order.limits)
    checker = Checker(channel, progress)
    with _client(order) as client:
        conversation = Conversation(
            order,
            model=Model(client, order, progress=progress, clock=clock),
            toolbox=Toolbox(workspace, checker, channel, progress, order.limits),
            progress=progress,
        )
        return conversation.run()


def _client(order: Order) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key=order.token,
        base_url="http://home",
        max_retries=0,  # model.py retries: it knows how much time is left
        timeout=httpx2.Timeout(SILENCE_LIMIT_S, connect=CONNECT_LIMIT_S),
        http_client=httpx2.Client(transport=httpx2.HTTPTransport(uds=order.socket)),
    )
