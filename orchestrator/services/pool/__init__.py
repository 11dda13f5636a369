"""Hosts, sandboxes and routes: admission, placement, warm sandboxes, reconciling, draining."""
