"""From an assignment to an app that runs."""
