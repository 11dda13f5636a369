"""The supervised processes: their order, their environment, their descriptors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from orchestrator import config
from orchestrator.entrypoints import children, descriptors


def test_the_agents_are_served_before_anything_needs_them_and_stop_after_it(
    tmp_path: Path,
) -> None:
    names = [child.name for child in children.all_children(config.make(state_dir=tmp_path))]
    assert names == ["redis", "agents", "api-1", "api-2", "nginx", "worker", "daemon"]
    assert set(names) < set(children.STOP_ORDER)


def test_only_the_process_of_the_gateway_gets_the_keys(tmp_path: Path) -> None:
    """The others learn that there is a key: it decides what the page offers."""
    base = {"ANTHROPIC_API_KEY": "sk-secret", "SPAWN_OPENAI_API_KEY": "", "HOME": "/root"}
    for child in children.all_children(config.make(state_dir=tmp_path)):
        environment = children.environment_of(child, base)
        if child.name == "agents":
            assert environment == base
        else:
            assert environment == {**base, "ANTHROPIC_API_KEY": children.WITHHELD}


def test_the_supervisor_raises_the_limit_of_descriptors() -> None:
    code = (
        "import resource; from orchestrator.entrypoints import descriptors\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))\n"
        "descriptors.raise_limit()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert int(result.stdout) == descriptors.reachable() or int(result.stdout) >= descriptors.WANTED
