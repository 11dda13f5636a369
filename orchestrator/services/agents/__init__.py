"""What agents call: assignments, reports, bundles, and the checks of their tokens."""
