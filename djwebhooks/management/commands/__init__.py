"""One command, with verbs."""
