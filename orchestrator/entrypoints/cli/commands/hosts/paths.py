"""Where the admin API has hosts. Used by the commands about hosts."""

from __future__ import annotations

from urllib.parse import quote

ALL = "/api/admin/hosts"


def one(name: str, action: str = "") -> str:
    """Of one host, or of what can be done with it. Names come from the command line as they are."""
    path = f"{ALL}/{quote(name, safe='')}"
    return f"{path}/{action}" if action else path
