"""Pages for the owners of webhooks: their targets, what was sent there, and what was answered."""
