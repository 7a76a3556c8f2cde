"""What torch asks of an optimizer."""
