"""One technology each; third-party errors are translated here."""
