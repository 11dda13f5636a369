"""The supervised processes: their order, their environment, their descriptors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from orchestrator import config
from orchestrator.entrypoints import children, descriptors, provider_keys


def test_the_agents_are_served_before_anything_needs_them_and_stop_after_it(
    tmp_path: Path,
) -> None:
    names = [child.name for child in children.all_children(config.make(state_dir=tmp_path))]
    assert names == ["redis", "agents", "api-1", "api-2", "nginx", "worker", "daemon"]
    assert set(names) < set(children.STOP_ORDER)


def test_only_the_process_of_the_gateway_gets_the_keys(tmp_path: Path) -> None:
    all_children = children.all_children(config.make(state_dir=tmp_path))
    assert [child.name for child in all_children if child.needs_key] == ["agents"]


def test_the_others_learn_that_there_is_a_key_because_it_decides_what_the_page_offers() -> None:
    base = {"ANTHROPIC_API_KEY": "sk-secret", "SPAWN_OPENAI_API_KEY": "", "HOME": "/root"}
    assert provider_keys.without_keys(base) == {
        **base,
        "ANTHROPIC_API_KEY": provider_keys.WITHHELD,
    }
    assert provider_keys.keys_of(base) == {"ANTHROPIC_API_KEY": "sk-secret"}


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
