"""Requests in flight suit the files that the process may open."""

import resource

import pytest

from djwebhooks.transports.files import OTHER_FILES, fit_concurrency


@pytest.mark.parametrize(
    ("files", "idle", "expected"),
    [(1024, None, (1024 - OTHER_FILES) // 2), (1024, 256, 640), (512, 256, 256 - OTHER_FILES), (2**16, None, 640), (64, 9, 1)],
)
def test_concurrency_suits_the_files(files: int, idle: int | None, expected: int) -> None:
    """A process that may open few files has fewer requests in flight, so that idle connections can be kept, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), hard))
    try:
        assert fit_concurrency(640, idle) == (expected if files <= hard else fit_concurrency(640, idle))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_without_a_limit_may_have_all() -> None:
    """As many as the transport wants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        pytest.skip("This process may not have any number of files.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        assert fit_concurrency(640) == 640
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
