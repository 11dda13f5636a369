"""One Docker engine, and the firewall of its sandboxes."""
