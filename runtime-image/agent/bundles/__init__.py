"""Reading and writing bundles."""
