"""What goes wrong on the way to an answer, in the words of ``Reply`` whichever transport it happens to."""

import errno
import re
import socket
from contextlib import ExitStack

from djwebhooks.exceptions import DjWebhooksError
from djwebhooks.transports.base import Request

ERROR_WORDS = {
    errno.ECONNREFUSED: "connection_refused",
    # The last router does not reach the host. This machine says so, too, when its own gateway is gone, but that ends sooner than
    # what a dead receiver would be tried for, if it never counted.
    errno.EHOSTUNREACH: "connection_refused",
    errno.EHOSTDOWN: "connection_refused",
    errno.ENETUNREACH: "network_unreachable",
    errno.ENETDOWN: "network_unreachable",
    errno.EAFNOSUPPORT: "network_unreachable",
    errno.EACCES: "network_unreachable",
    errno.EPERM: "network_unreachable",
    errno.EMFILE: "out_of_sockets",
    errno.ENFILE: "out_of_sockets",
    errno.ENOBUFS: "out_of_sockets",
    errno.ENOMEM: "out_of_sockets",
    errno.EADDRNOTAVAIL: "out_of_sockets",
}

#: Files that must be free for a failure not to be for want of them: a lookup or a connection takes no more at once.
SPARE_FILES = 3

#: Characters of what is wrong with an answer, as it quotes the answer.
DETAIL_LIMIT = 200
UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


class ExchangeFailed(DjWebhooksError):
    """The exchange cannot go on."""

    # Neither an OSError nor an HTTPException, so that urllib3 lets it through as it is.

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(detail)
        self.error = error
        self.detail = detail


def name_os_error(exc: OSError) -> ExchangeFailed:
    return ExchangeFailed(ERROR_WORDS.get(exc.errno or 0, "connection_reset"), f"The connection failed: {exc.strerror or exc}.")


def find_lack() -> ExchangeFailed | None:
    """Return what this process is out of, if it is: resolvers and libcurl then fail in any way, and say anything but that."""
    try:
        with ExitStack() as stack:
            for _ in range(SPARE_FILES):
                stack.enter_context(socket.socket())
    except OSError as exc:
        return ExchangeFailed("out_of_sockets", f"This process can open no more files or sockets: {exc.strerror}.")
    return None


def timed_out(request: Request, *, is_connecting: bool) -> ExchangeFailed:
    if not is_connecting:
        return ExchangeFailed("timeout", f"The answer was not complete after {request.timeout:g} s.")
    word = "connect_timeout" if request.connect_timeout < request.timeout else "timeout"
    return ExchangeFailed(word, f"There was no connection after {min(request.timeout, request.connect_timeout):g} s.")


def aborted() -> ExchangeFailed:
    return ExchangeFailed("aborted", "The request was broken off by the sender.")


def forbidden() -> ExchangeFailed:
    # No more than this: tenants would be shown what names mean inside this network.
    return ExchangeFailed("forbidden_address", "The URL's host, its address or its port is forbidden.")


def unsendable() -> ExchangeFailed:
    # No more than this: a header may be a secret.
    return ExchangeFailed("invalid_url", "The URL or a header of the request has characters that HTTP does not allow.")


def closed_early() -> ExchangeFailed:
    return ExchangeFailed("connection_reset", "The receiver closed the connection before its answer was complete.")


def not_http(words: str) -> ExchangeFailed:
    return ExchangeFailed("invalid_response", f"The answer is not HTTP: {clean(words)}.")


def tls_failed(words: str) -> ExchangeFailed:
    return ExchangeFailed("tls_error", f"TLS failed: {clean(words)}.")


def useless_certificate() -> ExchangeFailed:
    return ExchangeFailed("tls_error", "The client certificate cannot be used.")


def no_free_thread() -> ExchangeFailed:
    return ExchangeFailed("out_of_sockets", "No thread became free: slow name lookups hold them all.")


def unexpected() -> ExchangeFailed:
    """What to say of a fault that nobody thought of."""
    return find_lack() or ExchangeFailed("internal_error", "The transport failed; its log says why.")


def add_status(detail: str, status: int | None) -> str:
    """Return *detail* with what was received of an answer that broke off."""
    return detail if status is None else f"{detail} The head of the answer, with status {status}, was received."


def clean(words: str) -> str:
    """Return in one short line what may quote a receiver."""
    return UNPRINTABLE.sub("\ufffd", words.strip())[:DETAIL_LIMIT].rstrip(".")
