"""The REST API: owners manage their targets and see what was sent to them."""
