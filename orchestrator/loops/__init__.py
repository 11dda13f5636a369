"""When the services run: each loop calls one pass of a service, at intervals or when woken."""
