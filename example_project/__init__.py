"""The Retro Guestbook, and the real services that it, the tests and the benchmarks run on."""
