"""Hosts, sandboxes and routes: claiming, refilling, reconciling, losing, draining."""
