"""`python -m orchestrator.entrypoints.demo --port N`: serve until a signal stops it."""

from orchestrator.entrypoints.demo import server

if __name__ == "__main__":
    server.main()
