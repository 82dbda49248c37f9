"""The tests: one module for each module of djwebhooks, on real servers."""
