"""Tests of the admin, a module for each of its own."""
