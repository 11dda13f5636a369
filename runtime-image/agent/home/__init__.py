"""Talking to the control plane over the mounted UNIX socket."""
