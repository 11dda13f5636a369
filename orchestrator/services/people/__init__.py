"""API keys, and the principals behind them."""
