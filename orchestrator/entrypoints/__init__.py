"""Where processes begin: spawn-api, spawn-worker, spawn-daemon, spawnctl."""
