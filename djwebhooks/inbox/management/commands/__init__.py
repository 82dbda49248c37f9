"""The one command, ``webhooks``."""
