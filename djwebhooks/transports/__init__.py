"""The ways that requests leave the process."""
