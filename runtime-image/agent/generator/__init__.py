"""The generator: one conversation with the model, which ends in an app or in a failure.

It is a process of its own, started by `jobs/generation.py`. It writes files and asks the agent for
everything else. Read `main.py` and `conversation.py` first.
"""
