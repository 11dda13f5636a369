"""One module per version, in order. Those that were released are never edited."""
