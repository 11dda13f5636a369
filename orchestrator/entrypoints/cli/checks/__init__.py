"""What doctor looks at. Checks return findings; nothing here prints."""
