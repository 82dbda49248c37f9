"""Tests of the models, a module each."""
