"""Redis: the queue of nudges."""
