"""Answering visitors on port 3000."""
