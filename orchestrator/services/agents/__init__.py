"""What sandboxes ask and tell. The top of the services: it may use all others."""
