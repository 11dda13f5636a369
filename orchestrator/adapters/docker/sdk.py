"""The Docker SDK without what we don't use of it. All modules import the SDK from here."""

from __future__ import annotations

import warnings

from orchestrator import slim

# paramiko takes 16 MB of memory, and only hosts/break_glass.py needs the SSH transport.
# charset_normalizer takes 3 MB to guess how a text is encoded, and Docker's are UTF-8. Its user,
# requests, warns that it isn't there.
with (
    slim.hide_module("paramiko"),
    slim.hide_module("charset_normalizer"),
    warnings.catch_warnings(),
):
    warnings.filterwarnings("ignore", "Unable to find acceptable character detection")
    import docker
    import docker.errors
    import docker.transport.unixconn

__all__ = ["docker"]
