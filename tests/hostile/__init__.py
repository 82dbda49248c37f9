"""Receivers that misbehave and addresses that are forbidden, with real workers and real servers."""
