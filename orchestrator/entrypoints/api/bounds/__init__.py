"""What one principal may send and hold: bounds of inputs, of what is open, and of work."""
