"""`spawnctl hosts`: turns a bare machine into a host, operates it, and takes it out again."""
