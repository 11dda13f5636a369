"""API keys and who they belong to."""
