"""The endpoints of agents, on a UNIX socket."""
