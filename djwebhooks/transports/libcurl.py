"""pycurl, if it is there and its libcurl can do what is needed."""

import select
from collections.abc import Sequence
from typing import Any

try:
    import pycurl as pycurl
except ImportError as exc:
    raise ImportError(f"CurlTransport needs pycurl, which cannot be imported ({exc}): pip install 'djwebhooks[curl]'.") from exc

#: The oldest libcurl that was tried.
OLDEST = (8, 16, 0)
WHEEL = "Install a wheel, which brings its own: pip install --only-binary pycurl 'djwebhooks[curl]'."


def name_lack(version: Sequence[Any]) -> str:
    """Return in a sentence what is missing, as *version* says it (``pycurl.version_info()``); nothing if nothing is."""
    if tuple(int(part) for part in version[1].partition("-")[0].split(".")) < OLDEST:
        return f"CurlTransport needs libcurl {'.'.join(map(str, OLDEST))} or later, and pycurl has {version[1]}. {WHEEL}"
    if not str(version[5]).startswith("OpenSSL"):
        return f"CurlTransport needs a libcurl with OpenSSL, and pycurl's has {version[5] or 'no TLS'}. {WHEEL}"
    if not hasattr(select, "epoll"):
        return "CurlTransport needs Linux, for its epoll. Use djwebhooks.transports.requests.RequestsTransport here."
    return ""


if lack := name_lack(pycurl.version_info()):
    raise ImportError(lack)
