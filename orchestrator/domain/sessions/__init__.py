"""What a user asked for, from request to end: sessions, their plan, versions and changes."""
