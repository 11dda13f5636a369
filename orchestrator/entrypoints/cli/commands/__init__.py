"""One module for each command of spawnctl."""
