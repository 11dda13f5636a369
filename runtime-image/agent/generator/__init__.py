"""The generator: one conversation with the model that ends in an app or in a failure.

A process of its own, started by `generation.py`; the one user of the Anthropic SDK. It writes files
and asks the agent for everything else. Read `main.py` and `conversation.py` first.
"""
