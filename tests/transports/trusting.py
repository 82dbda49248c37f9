"""The transport of processes whose receiver has a certificate of a test's own authority."""

import os

from djwebhooks.transports.requests import RequestsTransport


class TrustingTransport(RequestsTransport):
    """Trusts the authorities in the file that the environment names, and no others."""

    def __init__(self, concurrency: int | None = None) -> None:
        super().__init__(concurrency, ca_bundle=os.environ["DJWEBHOOKS_TEST_AUTHORITIES"])
