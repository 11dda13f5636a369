"""SpawnAI's control plane: from a prompt to the link of a running app, and its end."""

__version__ = "0.1.0"
