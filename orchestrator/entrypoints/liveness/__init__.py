"""Signs of life of our processes: how they give them, and how the supervisor asks for them."""
