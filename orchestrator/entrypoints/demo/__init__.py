"""A stand-in for Claude, for use without an API key: a local Messages API with canned answers.

`make demo` starts it with all the other processes, and the page says that the answers are canned.
It follows the protocol of the real service: the types of the anthropic SDK 2.12, and the API's
documentation on streaming, errors and prompt caching. Tests extend it with faults. Start reading
with `server.py`.
"""
