"""Carrying out assignments: from an assignment to an app that runs."""
