"""How long the head of a request or an answer may be on its way between a visitor and an app.

The proxy, the agent's front and the check of an app all hold it.
"""

from __future__ import annotations

HEAD_MAX_BYTES = 64 * 1024
HEAD_ROOM_BYTES = 4 * 1024
"""For what the proxy and the front add to a head that is just short enough."""
