"""Tests of the test kit, a module each."""
