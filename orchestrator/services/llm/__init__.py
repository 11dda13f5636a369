"""What calls to a model cost, and how other providers are spoken to."""
