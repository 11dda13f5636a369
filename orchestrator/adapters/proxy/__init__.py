"""nginx, and the check that an app answers through it."""
