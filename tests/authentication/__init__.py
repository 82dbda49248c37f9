"""Tests of djwebhooks.authentication, a module for each module."""
