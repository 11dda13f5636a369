"""The endpoints of operators: admin, hosts, health, metrics."""
