"""Where things are inside a sandbox, and the limits that the protocol fixes.

Used by every module.
"""

from __future__ import annotations

HOME_SOCKET = "/run/spawn/agent.sock"
APP_ROOT = "/app"
APP_FOLDER = "/app/src"
NEXT_FOLDER = "/app/next"
"""Where the next version lives while the one before still serves; then the two change places."""
WORK_FOLDER = "/app/work"
"""Where the model writes. Nothing runs in there but its commands."""
BROWSER_LIBRARIES = "/opt/spawn/lib"
LAUNCHER = "/opt/spawn/agent/__main__.py"
APP_PYTHON = "/opt/python/bin/python"
APP_PATH = "/opt/python/bin:/usr/local/bin:/usr/bin:/bin"

FRONT_PORT = 3000
APP_PORT = 3001
NEXT_PORT = 3002

MANIFEST_NAME = "spawn.json"
MAX_PACKED_BYTES = 20 * 1024 * 1024
MAX_UNPACKED_BYTES = 100 * 1024 * 1024
MAX_FILES = 2_000
MAX_PATH_CHARS = 240
MAX_LINE_CHARS = 2_000
"""Longest log line in a report, and longest tail of log lines in a failure's message."""
MAX_LINES_PER_REPORT = 200
MAX_MESSAGE_CHARS = 200
MAX_SUMMARY_CHARS = 4_000
