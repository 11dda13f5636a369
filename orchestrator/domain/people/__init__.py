"""Who asks: principals, keys, tokens, and what each of them may have."""
