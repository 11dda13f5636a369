"""Where processes begin: the supervisor, those that it starts, and spawnctl."""
