"""Look names up, and let nobody connect to addresses that are forbidden."""

import logging
import socket

from djwebhooks.exceptions import ForbiddenAddress
from djwebhooks.network import GetAddrInfo, name_dns_fault, resolve
from djwebhooks.transports import faults
from djwebhooks.transports.faults import ExchangeFailed

logger = logging.getLogger(__name__)


def find_addresses(host: str, port: int, getaddrinfo: GetAddrInfo) -> list[str]:
    """Return the addresses of *host*, all of them allowed. Raises ExchangeFailed if one is not, or if there are none."""
    try:
        return resolve(host, port, getaddrinfo=getaddrinfo)
    except ForbiddenAddress as exc:
        # Its message is the operator's.
        logger.info("%s", exc)
        raise faults.forbidden() from exc
    except socket.gaierror as exc:
        raise ExchangeFailed(name_dns_fault(exc), f"Looking up {host} failed: {exc.strerror}.") from exc
    except OSError as exc:
        raise faults.name_os_error(exc) from exc
    except UnicodeError as exc:
        raise ExchangeFailed("invalid_url", "The URL's host is no valid name.") from exc
