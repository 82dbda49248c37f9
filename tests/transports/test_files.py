"""Requests in flight suit the files that the process may open."""

import resource
from math import inf

import pytest

from djwebhooks.transports.files import OTHER_FILES, count_files, fit_concurrency


@pytest.mark.parametrize(
    ("files", "idle", "expected"),
    [
        (1024, None, (1024 - OTHER_FILES) // 2),
        (1024, 256, 640),
        (512, 256, 256 - OTHER_FILES),
        (2**16, None, 640),
        (64, 9, 1),
        (inf, None, 640),
        (inf, 256, 640),
    ],
)
def test_concurrency_suits_the_files(files: float, idle: int | None, expected: int) -> None:
    """A process that may open few files has fewer requests in flight, so that idle connections can be kept, too."""
    assert fit_concurrency(640, idle, files=files) == expected


def test_the_limit_is_the_process_s_own() -> None:
    """The soft one, which counts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        assert count_files() == 200
        assert fit_concurrency(640) == (200 - OTHER_FILES) // 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
