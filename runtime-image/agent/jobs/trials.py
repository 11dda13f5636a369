"""Has home open a version at its public address before anybody else sees it.

Used by `workshop.py` and `job.py`. The front gives the version to the one who knows the trial's
secret; home asks with it through the proxy and the published port, as a visitor's browser does.
"""

from __future__ import annotations

import json
import os

from agent.apps.app import App
from agent.console import log
from agent.home.client import HomeClient, HomeUnreachable
from agent.serving.site import Site, Trial
from orchestrator.contract.health import Condition, Finding
from orchestrator.contract.wire import ProtocolError, decode, parse_finding
from orchestrator.contract.wire.trials import TRIAL_LIMIT_S

MARGIN_S = 5.0
"""For home's answer, beyond what the app may take."""


class PublicAddress:
    """Where visitors reach the app of one assignment."""

    def __init__(self, home: HomeClient, site: Site, token: str) -> None:
        """`token` is that of the assignment's session."""
        self._home = home
        self._site = site
        self._token = token

    async def problem_of(self, app: App) -> str:
        """What a visitor of this version would find wrong, as a sentence.

        Empty if it is well, and also if the request didn't get to it: that is not the app's fault.
        """
        trial = Trial(os.urandom(16).hex(), app.serving, app.slot, app.files)
        self._site.trial = trial
        try:
            finding = await self._ask(trial.secret)
        finally:
            self._site.trial = None
        if finding is None or finding.condition is Condition.WELL:
            return ""
        # If all requests reached the app, what stands between it and visitors refuses its answer.
        if finding.condition is Condition.UNWELL or trial.requests >= finding.requests:
            return finding.problem
        log("trial_unreached", problem=finding.problem)
        return ""

    async def _ask(self, secret: str) -> Finding | None:
        """None: home doesn't say."""
        try:
            response = await self._home.request(
                "POST",
                "/agent/trial",
                token=self._token,
                body=json.dumps({"secret": secret}).encode(),
                headers=[("Content-Type", "application/json")],
                timeout_s=TRIAL_LIMIT_S + MARGIN_S,
            )
            if response.status == 200:
                return parse_finding(decode(response.body, "answer"))
            log("trial_refused", status=response.status)
        except (HomeUnreachable, ProtocolError) as error:
            log("trial_failed", error=str(error))
        return None
