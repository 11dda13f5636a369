"""Where things are inside a sandbox: folders, programs and ports. Used by every package."""

from __future__ import annotations

HOME_SOCKET = "/run/spawn/agent.sock"
APP_FOLDER = "/app/src"
NEXT_FOLDER = "/app/next"
"""For the next version, while the current one still serves. Then the two folders swap roles."""
WORK_FOLDER = "/app/work"
"""Where the model writes. The app doesn't run in there, only the model's commands do."""
BROWSER_LIBRARIES = "/opt/spawn/lib"
USERS = "/app/passwd"
GROUPS = "/app/group"
"""/etc/passwd and /etc/group are links to these."""
LAUNCHER = "/opt/spawn/agent/__main__.py"
INTERPRETERS = "/opt/spawn/interpreters"
"""What a Python and a Node run that wait to become an app."""
APP_PYTHON = "/opt/python/bin/python"
APP_PATH = "/opt/python/bin:/usr/local/bin:/usr/bin:/bin"

FRONT_PORT = 3000
APP_PORT = 3001
NEXT_PORT = 3002
