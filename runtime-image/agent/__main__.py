"""Launcher, run by path from the image's entrypoint: `__main__.py [agent|generator]`.

The agent starts with `-I -S` (no site-packages scan: that saves start-up time), so it names the two
folders it needs by itself. They go behind the standard library, which no app can write to anyway.
"""

import gc
import importlib
import os
import sys

PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SITE_PACKAGES = "/opt/python/lib/python3.11/site-packages"
PROGRAMS = {"agent": "agent.main", "generator": "agent.generator.main"}

if __name__ == "__main__":
    program = sys.argv[1] if len(sys.argv) > 1 else "agent"
    sys.path += [PACKAGE_PARENT, SITE_PACKAGES]
    if program == "agent":
        gc.disable()  # imports make no garbage to speak of; main.py turns it on again
        # asyncio imports ssl if it can. Nothing here speaks TLS, and OpenSSL costs a third of the
        # start-up time; asyncio is written to do without.
        sys.modules["ssl"] = None  # type: ignore[assignment]  # documented: makes the import fail
    importlib.import_module(PROGRAMS[program]).main()
