"""`spawnctl hosts`: from a bare machine to a host and back."""
