"""Tests of what wakes workers."""
