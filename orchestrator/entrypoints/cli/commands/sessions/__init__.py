"""`spawnctl sessions`, and the waiting for a session that `spawnctl run` shares."""
