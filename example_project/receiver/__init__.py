"""A stranger's server: a project of its own, which takes webhooks in with ``djwebhooks.inbox`` and prints what they say."""
