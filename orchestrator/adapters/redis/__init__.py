"""Redis: the queue of nudges, wake-ups, and the board with the state of the links."""
