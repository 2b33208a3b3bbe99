"""What yields an action or a value."""
