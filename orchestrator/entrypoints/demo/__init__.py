"""A stand-in for Claude where no key is at hand: a local Messages API with canned answers.

`make demo` starts it beside everything else, and the page says that answers are canned. It speaks
the grammar of the real service (the types of the anthropic SDK 2.12; the API's pages on streaming,
errors and prompt caching), and tests build their faults on it. `server.py` first.
"""
