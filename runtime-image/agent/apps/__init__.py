"""Running apps: their processes, the model's commands, and requests to try an app."""
