"""The program inside every sandbox: dials home, fetches or generates an app, runs and fronts it.

Of third-party code it imports h11 only, and of the control plane `orchestrator.contract` only. The
generator (`generator/`) is a separate process and the one user of the Anthropic SDK. Read `main.py`
and `work.py` first, then `jobs/job.py`. Home is the control plane.
"""
