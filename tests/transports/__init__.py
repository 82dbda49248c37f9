"""The transports, all held to one contract."""
