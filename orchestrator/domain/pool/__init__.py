"""Where apps run: hosts, sandboxes, routes, and how full the pool is to be."""
