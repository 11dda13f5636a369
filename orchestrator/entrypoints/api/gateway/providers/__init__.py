"""The providers that can answer a call: Anthropic's API, and OpenAI-compatible endpoints."""
