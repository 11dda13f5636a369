"""What an app has made, and its copies in the next version of the app."""
