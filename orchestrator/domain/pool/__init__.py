"""Where apps run: hosts, sandboxes, routes, and how many sandboxes to keep warm."""
