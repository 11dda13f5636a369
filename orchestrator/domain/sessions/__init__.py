"""What a user asked for, from request to end: sessions, their planner, versions and changes."""
