"""Hosts and sandboxes on SQL, with the transactions that place, claim and move sandboxes."""
