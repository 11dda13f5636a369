"""What this sandbox shows to the outside at one instant.

Written by `job.py` and `app.py`, read by `front.py`.
"""

from __future__ import annotations

from enum import StrEnum

from agent.layout import APP_FOLDER, APP_PORT, BROWSER_LIBRARIES


class Serving(StrEnum):
    NOTHING = "nothing"  # no assignment yet: 404
    STARTING = "starting"  # an assignment, but no app that answers: 503, the page reloads
    FILES = "files"  # a static app: the agent answers from the folder
    PROCESS = "process"  # a python or node app: requests go to its port
    STOPPED = "stopped"  # the app failed for good: 503


class Site:
    """The one object that front and runner share."""

    def __init__(
        self,
        *,
        folder: str = APP_FOLDER,
        libraries: str = BROWSER_LIBRARIES,
        app_port: int = APP_PORT,
    ) -> None:
        self.folder = folder
        self.libraries = libraries
        self.app_port = app_port
        self.serving = Serving.NOTHING
        self._slugs: set[str] = set()

    def answer_to(self, slug: str) -> None:
        """Requests for this slug are ours from now on."""
        self._slugs.add(slug.lower())

    def is_ours(self, host: str) -> bool:
        """Whether a Host header's first label is one of this sandbox's slugs.

        Ports are handed out again: a proxy with an old route must never show one session's app
        at another session's address.
        """
        return host.partition(":")[0].partition(".")[0].lower() in self._slugs
