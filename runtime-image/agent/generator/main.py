"""The generator's process, from its order to its last message. Started by `agent/__main__.py`."""

from __future__ import annotations

import gc
import sys
import time

from agent.failures import AssignmentFailed
from agent.generator.channel import Channel
from agent.generator.checker import Checker
from agent.generator.conversation import Conversation
from agent.generator.messages_api import MessagesApi
from agent.generator.model import Clock, Model
from agent.generator.order import Order, parse_order
from agent.generator.progress import Progress
from agent.generator.toolbox import Toolbox
from agent.generator.workspace import Workspace


def main() -> None:
    """Read the order, make the app, send the result."""
    gc.enable()  # the launcher turned it off
    channel = Channel(sys.stdin, sys.stdout)
    order = parse_order(channel.read_order())
    try:
        summary = generate(order, channel, Clock(now=time.monotonic, sleep=time.sleep))
    except AssignmentFailed as failure:
        channel.send("error", code=str(failure.code), message=failure.message)
    else:
        channel.send("result", summary=summary)


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
    api = MessagesApi(socket_path=order.socket, token=order.token)
    conversation = Conversation(
        order,
        model=Model(api, order, progress=progress, clock=clock),
        toolbox=Toolbox(workspace, checker, channel, progress, order.limits),
        progress=progress,
    )
    return conversation.run()
