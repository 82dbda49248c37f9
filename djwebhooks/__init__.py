"""Send webhooks from Django: in your transaction, from your database, never lost."""

__version__ = "0.1.0"
