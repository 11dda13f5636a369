"""The program inside every sandbox: dials home, fetches or generates an app, runs and fronts it.

Stdlib and h11 only; the generator (`generator/`) is a separate process and the one user of the
Anthropic SDK. Read `main.py` and `work.py` first, then `job.py`.
"""
