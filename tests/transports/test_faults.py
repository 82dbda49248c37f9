"""What goes wrong on the way to an answer, in words."""

import errno
import os

import pytest

from djwebhooks.retry import OUR_OWN_FAULTS
from djwebhooks.transports.faults import name_os_error


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.EHOSTUNREACH, errno.EHOSTDOWN])
def test_what_a_receiver_does_is_its_fault(number: int) -> None:
    """It refuses a connection, breaks it off, or is not there, as far as its last router knows."""
    assert name_os_error(OSError(number, os.strerror(number))).error not in OUR_OWN_FAULTS


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.ENETUNREACH, "network_unreachable"),
        (errno.EACCES, "network_unreachable"),
        (errno.EMFILE, "out_of_sockets"),
        (errno.ENOBUFS, "out_of_sockets"),
        (errno.EADDRNOTAVAIL, "out_of_sockets"),
    ],
)
def test_what_may_lie_with_us_is_our_own_fault(number: int, word: str) -> None:
    """A lack of files or ports is ours, and so is the lack of any way out."""
    assert name_os_error(OSError(number, os.strerror(number))).error == word
    assert word in OUR_OWN_FAULTS
