"""Calls to a model: what they may cost, and what to do if a provider fails."""
