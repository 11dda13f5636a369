"""Who makes requests: principals, keys, tokens, and the limits of each tier."""
