"""The process `agents`: the endpoints of agents, on a UNIX socket for each sandbox."""
