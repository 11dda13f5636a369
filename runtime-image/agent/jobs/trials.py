"""Has home open a version at its public address before anybody else sees it.

Used by `workshop.py` and `job.py`. The front gives the version to the one who knows the trial's
secret; home asks with it through the proxy and the published port, as a visitor's browser does.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass

from agent.apps.app import App
from agent.console import log
from agent.home.client import HomeClient, HomeUnreachable
from agent.serving.site import Site, Trial
from orchestrator.contract.health import PATIENCE_S, Condition, Finding
from orchestrator.contract.wire import ProtocolError, decode, parse_finding
from orchestrator.contract.wire.trials import TURN_LIMIT_S

MARGIN_S = 5.0
"""For home's answer, beyond its turn and what the app may take."""
UNREACHED_LIMIT_S = 10.0
"""For proxy and home, to get well."""
PAUSE_S = 0.5
FORBIDDEN = 403


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a visitor of a version would find."""

    problem: str = ""  # a sentence; empty if it is well
    is_known: bool = True  # False: nobody got to the version, which is not the app's fault


class PublicAddress:
    """Where visitors reach the app of one assignment."""

    def __init__(
        self,
        home: HomeClient,
        site: Site,
        token: str,
        *,
        unreached_limit_s: float = UNREACHED_LIMIT_S,
    ) -> None:
        """`token` is that of the assignment's session. What can't be reached is tried again for
        `unreached_limit_s`."""
        self._home = home
        self._site = site
        self._token = token
        self._unreached_limit_s = unreached_limit_s

    async def open(self, app: App) -> Verdict:
        """Have this version opened, again if nobody gets to it."""
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + self._unreached_limit_s
        while True:
            verdict, may_repeat = await self._open_once(app)
            if verdict.is_known or not may_repeat or loop.time() >= ends_at_s:
                break
            await asyncio.sleep(PAUSE_S)
        if not verdict.is_known:
            log("trial_unreached", problem=verdict.problem)
        return verdict

    async def _open_once(self, app: App) -> tuple[Verdict, bool]:
        """The verdict, and whether another try may end otherwise."""
        trial = Trial(os.urandom(16).hex(), app.serving, app.slot, app.files)
        self._site.trial = trial
        try:
            finding = await self._ask(trial.secret)
        except _Refused as refused:
            problem = f"home answers {refused.status}."
            return Verdict(problem=problem, is_known=False), refused.status != FORBIDDEN
        finally:
            self._site.trial = None
        if finding is None:
            return Verdict(problem="home doesn't say.", is_known=False), True
        if finding.condition is Condition.WELL:
            return Verdict(), False
        # If all requests reached the app, what stands between it and visitors refuses its answer.
        is_known = finding.condition is not Condition.UNREACHED
        is_known = is_known or trial.requests >= finding.requests
        return Verdict(problem=finding.problem, is_known=is_known), True

    async def _ask(self, secret: str) -> Finding | None:
        """None: home doesn't say. Raises _Refused."""
        try:
            response = await self._home.request(
                "POST",
                "/agent/trial",
                token=self._token,
                body=json.dumps({"secret": secret}).encode(),
                headers=[("Content-Type", "application/json")],
                timeout_s=TURN_LIMIT_S + PATIENCE_S + MARGIN_S,
            )
            if response.status == 200:
                return parse_finding(decode(response.body, "answer"))
        except (HomeUnreachable, ProtocolError) as error:
            log("trial_failed", error=str(error))
            return None
        log("trial_refused", status=response.status)
        raise _Refused(response.status)


class _Refused(Exception):
    """Home opens nothing: the change has ended, for example."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
