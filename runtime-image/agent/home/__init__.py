"""Talking to home, the control plane, over the mounted UNIX socket."""
