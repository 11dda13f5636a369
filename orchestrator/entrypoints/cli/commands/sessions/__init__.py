"""`spawnctl sessions`, and what waits for a session."""
