"""One SSH connection for each host."""
