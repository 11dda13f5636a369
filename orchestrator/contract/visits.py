"""How many requests to one app may be open at a time. The proxy counts them, and the agent's front.

The proxy knows who asks, and refuses with the reason; so its limit is never above the front's.
"""

from __future__ import annotations

APP_CONNECTIONS_MAX = 512
"""Of visitors. The front holds up to two descriptors and some 400 KiB for each: a head, a small
body, and what it reads ahead."""
OWN_CONNECTIONS_ROOM = 16
"""Beside them, for the control plane: it looks whether an app is well, however many visit it."""
PROBE_HEADER = "X-Spawn-Probe"
"""Of a request of the control plane. The proxy takes it from what visitors send."""
