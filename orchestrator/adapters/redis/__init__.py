"""Redis: the queue of nudges, wake-ups, and the board of links."""
