"""The commands of spawnctl. `COMMANDS` in `main` says which module has which command."""
