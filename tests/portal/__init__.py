"""Tests of the portal, a module for each of its own."""
