"""What calls to a model may cost, and what to do when a provider fails."""
