"""Running the app's process and the model's commands."""
