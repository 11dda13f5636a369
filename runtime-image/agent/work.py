"""From the identity to the end of the sandbox: what the agent does once it listens.

`main.py` loads this module late, and with it all that fetches, unpacks and runs apps.
"""

from __future__ import annotations

import asyncio
import sys

from agent import threads
from agent.apps import processes
from agent.console import say
from agent.home.client import HomeClient
from agent.home.identity import read_identity
from agent.home.inbox import follow_inbox
from agent.jobs.runner import Runner
from agent.layout import FRONT_PORT, HOME_SOCKET
from agent.protocol import ProtocolError
from agent.serving.site import Site

EXIT_BAD_IDENTITY = 2


async def work(site: Site, *, listening_cpu_ms: int) -> None:
    """Do what home asks until it says that this sandbox is no longer wanted, or until cancelled.

    Either way no app is running any more in the end.
    """
    processes.adopt_orphans()
    threads.start_thread()
    say("listening", port=FRONT_PORT, cpu_ms=listening_cpu_ms)
    try:
        identity = await read_identity()
    except ProtocolError as error:
        say("this is no identity, giving up", problem=str(error))
        sys.exit(EXIT_BAD_IDENTITY)
    site.answer_to(identity.slug)
    home = HomeClient(HOME_SOCKET)
    async with asyncio.TaskGroup() as tasks:
        runner = Runner(home=home, site=site, tasks=tasks)
        try:
            await follow_inbox(home, identity, runner)
        finally:
            await runner.stop()
            say("the app is stopped, good-bye")
