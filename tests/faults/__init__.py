"""Real processes that are killed, servers that fail, clocks that are wrong: nothing is lost, and nothing is stranded."""
