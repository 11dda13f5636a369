"""Keeps the providers' keys away from every process but the one that needs them.

The supervisor sets them aside before it does anything else: its forks inherit its memory.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping

_SECRETS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "SPAWN_ANTHROPIC_API_KEY",
    "SPAWN_FALLBACK_API_KEY",
    "SPAWN_OPENAI_API_KEY",
)
WITHHELD = "withheld"  # in place of a key: whether there is one decides what the page offers
_DESCRIPTOR = "SPAWN_KEYS_DESCRIPTOR"  # in the environment between the two starts
_MAX_BYTES = 1024**2


def set_aside() -> int:
    """Move the keys from our environment into a file that has no name, and return its descriptor.

    Starts this program again in this process, without them: what a process has once read stays in
    its memory.
    """
    descriptor = os.environ.pop(_DESCRIPTOR, "")
    if descriptor:
        os.set_inheritable(int(descriptor), False)
        return int(descriptor)
    file = os.memfd_create("keys")
    os.write(file, json.dumps(keys_of(os.environ)).encode())
    os.set_inheritable(file, True)
    environment = {**without_keys(os.environ), _DESCRIPTOR: str(file)}
    argv = [sys.executable, *sys.orig_argv[1:]]
    return os.execve(sys.executable, argv, environment)  # noqa: S606 - this program


def read(file: int) -> dict[str, str]:
    """The keys that were set aside, by the name of their variable."""
    return dict(json.loads(os.pread(file, _MAX_BYTES, 0)))


def keys_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are keys."""
    return {name: environment[name] for name in _SECRETS if environment.get(name)}


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with a placeholder for each key."""
    return {**environment, **dict.fromkeys(keys_of(environment), WITHHELD)}
