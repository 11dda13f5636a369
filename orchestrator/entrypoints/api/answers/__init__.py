"""The shapes of what the API answers, for mypy and for the OpenAPI document."""
