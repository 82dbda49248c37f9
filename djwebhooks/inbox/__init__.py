"""Receive webhooks: a Django app of its own, which needs no other part of djwebhooks to be installed."""
