"""Launcher, run by path from the image's entrypoint: `__main__.py [agent|generator]`.

Both start with `-I -S`: skipping the scan of site-packages saves start-up time. So this adds two
folders by itself, behind the standard library: its own parent, which holds `agent` and
`orchestrator.contract`, and the libraries.
"""

import gc
import importlib
import os
import sys

PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SITE_PACKAGES = "/opt/python/lib/python3.11/site-packages"
PROGRAMS = {"agent": "agent.main", "generator": "agent.generator.main"}
# The standard library imports these if it can, and works without them. Neither speaks TLS, and a
# bundle is hashed by Python's own code and packed by zlib. OpenSSL costs a third of the start-up
# time, and each sandbox some memory.
UNUSED = ("ssl", "_hashlib", "bz2", "lzma")

if __name__ == "__main__":
    program = sys.argv[1] if len(sys.argv) > 1 else "agent"
    sys.path += [PACKAGE_PARENT, SITE_PACKAGES]
    gc.disable()  # imports make hardly any garbage; each `main` turns it on again
    for name in UNUSED:
        sys.modules[name] = None  # type: ignore[assignment]  # documented: the import fails
    importlib.import_module(PROGRAMS[program]).main()
