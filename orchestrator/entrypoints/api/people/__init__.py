"""The endpoints of users: sessions, changes, usage."""
