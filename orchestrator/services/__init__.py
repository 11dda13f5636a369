"""Use cases over ports. Synchronous; no third-party I/O library is imported here."""
