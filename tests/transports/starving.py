"""A process that runs out of files, and prints as JSON what comes of its lookups and requests.

Its arguments are the path of a transport's class, the URL of a receiver with TLS on ``localhost``, the path of the authorities to
trust, and that of the client certificate to show.
"""

import contextlib
import json
import os
import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.utils.module_loading import import_string

from djwebhooks.transports.base import Request, Transport
from djwebhooks.transports.faults import SPARE_FILES, ExchangeFailed
from djwebhooks.transports.lookups import find_addresses


@contextlib.contextmanager
def leave_files(count: int) -> Iterator[None]:
    """Let this process open *count* more files, and none beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_files = [os.dup(0) for _ in range(count + 1)]
    for file in next_files:
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_files[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def look_up() -> str:
    try:
        return str(bool(find_addresses("localhost", 443, socket.getaddrinfo)))
    except ExchangeFailed as exc:
        return exc.error


def post(transport: Transport, url: str, certificate: str = "") -> str:
    transport.submit(Request(1, url, b"{}", {"x-a": "b"}, 10.0, 5.0, 1024, certificate))
    replies = transport.wait(20.0)
    return replies[0].error


def send(path: str, url: str, ca_bundle: str, certificate: str, files: int) -> str:
    transport = import_string(path)(1, ca_bundle=ca_bundle)
    # Makes what the transport needs whatever it sends.
    post(transport, "http://127.0.0.1:1/")
    with leave_files(files):
        error = post(transport, url, certificate)
    transport.close()
    return error


def main(path: str, url: str, ca_bundle: str, certificate: str) -> None:
    settings.configure(DJWEBHOOKS_ALLOWED_NETWORKS=("127.0.0.0/8", "::1/128"))
    # Names are encoded by a module, which takes a file the first time.
    "localhost".encode("idna")
    pem = Path(certificate).read_text()
    with leave_files(0):
        cold = look_up()
    look_up()
    with leave_files(0):
        warm = look_up()
    requests = [send(path, url, ca_bundle, pem, files) for files in range(2 * SPARE_FILES + 1)]
    json.dump({"lookups": [cold, warm], "requests": requests}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
