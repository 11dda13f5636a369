"""Headers by which proxy, front and control plane know whose answer a visitor got.

The front and the proxy mark the pages of their own; the front takes the mark from all that an app
answers. So an answer without a mark is the app's.
"""

from __future__ import annotations

from enum import StrEnum

PAGE_HEADER = "X-Spawn-Page"
TRIAL_HEADER = "X-Spawn-Trial"
"""Of a request for the version that is being tried. Its value is a secret of the agent."""


class FrontPage(StrEnum):
    """Whose page it is, and what it says."""

    PROXY = "proxy"  # the proxy: no route, or nobody answers there
    MISDIRECTED = "misdirected"  # the front: the name in the request belongs elsewhere
    NOTHING = "nothing"  # the front: no app was assigned yet
    STARTING = "starting"  # the front: the app takes no request at the moment
    STOPPED = "stopped"  # the front: the app was given up
    NO_ANSWER = "no-answer"  # the front: the app hung up
    BAD_ANSWER = "bad-answer"  # the front: the app sent no valid HTTP
    LONG_HEAD = "long-head"  # the front: the head of the app's answer is too long
