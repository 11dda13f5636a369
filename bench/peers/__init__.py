"""Other programs that start apps in containers on a Docker host, set up for a comparison."""
