"""Kill at random for a while, and at every statement: ``python -m tests.faults.soak --minutes 10``, on each database in turn."""

import os
import sys
from argparse import ArgumentParser

from tests.__main__ import main as run_tests

#: What is run, and shown, on each database.
TESTS = (
    "tests/faults/test_soak.py",
    "tests/faults/test_kill_matrix.py::test_a_worker_killed_at_any_statement_loses_nothing",
    "tests/faults/test_kill_erasure.py",
)


def main(arguments: list[str]) -> int:
    parser = ArgumentParser(prog="soak", description="Kill workers and applications, and check that nothing is lost.")
    parser.add_argument("--minutes", type=float, default=10, help="How long to kill at random on each database.")
    parser.add_argument("--seed", type=int, help="What was drawn when it failed; by default something new.")
    options = parser.parse_args(arguments)
    os.environ["DJWEBHOOKS_TEST_MINUTES"] = str(options.minutes)
    os.environ["DJWEBHOOKS_TEST_SAMPLE"] = str(sys.maxsize)
    if options.seed is not None:
        os.environ["DJWEBHOOKS_TEST_SEED"] = str(options.seed)
    return run_tests(["-n", "0", "-s", "-v", "-p", "no:randomly", *TESTS])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
