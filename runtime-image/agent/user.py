"""A name for this sandbox's user, whose number no image can know. Used by `work.py`.

Node's os.userInfo() and Python's pwd raise for a user without a name.
"""

from __future__ import annotations

import contextlib
import os

from agent.layout import GROUPS, USERS


def name_user() -> None:
    """Name user and group `app`. If that fails, apps do without."""
    uid, gid = os.getuid(), os.getgid()
    users = f"root:x:0:0::/:/usr/sbin/nologin\napp:x:{uid}:{gid}::/tmp:/usr/sbin/nologin\n"
    groups = f"root:x:0:\napp:x:{gid}:\n"
    for path, text in ((USERS, users), (GROUPS, groups)):
        with contextlib.suppress(OSError), open(path, "w") as file:
            file.write(text)
