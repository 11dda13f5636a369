"""From the identity to the end of the sandbox: what the agent does once it listens.

`main.py` loads this module late, and with it all that fetches, unpacks and runs apps.
"""

from __future__ import annotations

import asyncio
import sys

from agent import threads
from agent.apps import processes
from agent.apps.app import environment
from agent.apps.interpreters import Interpreters
from agent.console import log
from agent.home.client import HomeClient
from agent.home.identity import read_identity
from agent.home.inbox import follow_inbox
from agent.jobs.runner import Runner
from agent.layout import FRONT_PORT, HOME_SOCKET
from agent.serving.site import Site
from agent.user import name_user
from orchestrator.contract.wire import ProtocolError

EXIT_BAD_IDENTITY = 2


async def work(site: Site, *, listening_cpu_ms: int) -> None:
    """Carry out home's assignments until home dismisses this sandbox, or until cancelled.

    In both cases no app runs any more at the end. `listening_cpu_ms` is the processor time that
    the start took; it is only logged.
    """
    processes.adopt_orphans()
    threads.start_thread()
    name_user()
    log("front_listening", port=FRONT_PORT, cpu_ms=listening_cpu_ms)
    try:
        identity = await read_identity()
    except ProtocolError as error:
        log("identity_rejected", error=str(error))
        sys.exit(EXIT_BAD_IDENTITY)
    site.answer_to(identity.slug)
    home = HomeClient(HOME_SOCKET)
    interpreters = Interpreters(environment)
    interpreters.wait_for(site.slot)
    async with asyncio.TaskGroup() as tasks:
        runner = Runner(home=home, site=site, tasks=tasks, interpreters=interpreters)
        keeping = tasks.create_task(interpreters.keep()) if identity.interpreters else None
        try:
            await follow_inbox(home, identity, runner)
        finally:
            await runner.stop()
            if keeping is not None:
                keeping.cancel()
            log("app_stopped")
