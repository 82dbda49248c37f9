"""A small application for tests to take model instances from."""
