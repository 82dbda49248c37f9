"""The inbox's table."""
