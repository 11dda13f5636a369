"""When, never how: each loop calls one pass of a service, on a rhythm or when woken."""
