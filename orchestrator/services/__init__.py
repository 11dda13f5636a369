"""Use cases over ports. Sync; no third-party I/O library is imported here."""
