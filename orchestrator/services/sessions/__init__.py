"""Requests of users, and converge, which carries them out."""
