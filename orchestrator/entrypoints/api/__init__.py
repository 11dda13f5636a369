"""spawn-api: the public app behind the proxy, and the agent app on a UNIX socket."""
