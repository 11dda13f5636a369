"""Libraries that our long-running processes must not hold in memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

_LOADED = "import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"


@pytest.mark.parametrize(
    ("process", "unneeded"),
    [
        ("api.server", {"docker", "asyncssh", "paramiko", "rich", "httpx2"}),
        ("api.agents.server", {"docker", "asyncssh", "paramiko", "rich", "fastapi"}),
        ("jobs", {"docker", "asyncssh", "paramiko", "rich", "fastapi"}),
        ("daemon", {"asyncssh", "paramiko", "rich", "fastapi", "charset_normalizer"}),
        ("supervisor", {"docker", "asyncssh", "paramiko", "rich", "sqlalchemy", "redis"}),
    ],
)
def test_a_process_does_not_import_libraries_that_it_does_not_need(
    process: str, unneeded: set[str]
) -> None:
    code = _LOADED.format(module=f"orchestrator.entrypoints.{process}")
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert unneeded & set(result.stdout.split()) == set()


def test_the_command_line_still_has_those_libraries() -> None:
    code = (
        "import orchestrator.adapters.docker.engine, orchestrator.observability,"
        " orchestrator.adapters.hosts.break_glass, rich.console, docker;"
        " print(docker.APIClient)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert "APIClient" in result.stdout
