"""The public app behind the proxy, and the agent app in a process of its own."""
