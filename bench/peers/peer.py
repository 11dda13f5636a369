"""What the comparison asks of a peer."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

APP = ("python3", "-c", (Path(__file__).parent / "app.py").read_text())


class Peer(Protocol):
    """A program that starts apps. Threads may call it at the same time."""

    def start(self) -> float:
        """Seconds from the request for an app to its first 200. The app is removed afterwards."""


class Unavailable(Exception):
    """This peer can't be had here. The message says why."""
