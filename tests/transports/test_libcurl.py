"""What is said where pycurl is missing, or cannot do what is needed."""

import subprocess
import sys
from typing import Any

import pycurl
import pytest

from djwebhooks.transports.libcurl import OLDEST, name_lack

CHECK = """
import sys, types
if {module!r} == "missing":
    sys.modules["pycurl"] = None
else:
    sys.modules["pycurl"] = types.ModuleType("pycurl")
    sys.modules["pycurl"].version_info = lambda: (0, "7.88.1", 0, "Linux", 0, "GnuTLS/3.7.9")
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "djwebhooks"],
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
    DJWEBHOOKS_ENGINE="djwebhooks.engines.database.DatabaseEngine",
    DJWEBHOOKS_TRANSPORT="djwebhooks.transports.curl.CurlTransport",
    SECRET_KEY="x",
)
django.setup()
from djwebhooks.checks import check_paths
print(*(f"{{message.id}} {{message.msg}}" for message in check_paths()))
"""


def test_what_is_tried_is_enough() -> None:
    """The pycurl that the tests use lacks nothing."""
    assert name_lack(pycurl.version_info()) == ""


@pytest.mark.parametrize(
    ("version", "tls", "words"),
    [
        ("8.15.0", "OpenSSL/3.5.0", "CurlTransport needs libcurl 8.16.0 or later, and pycurl has 8.15.0."),
        ("7.88.1-DEV", "OpenSSL/3.5.0", "CurlTransport needs libcurl 8.16.0 or later, and pycurl has 7.88.1-DEV."),
        ("8.16.0-DEV", "GnuTLS/3.7.9", "CurlTransport needs a libcurl with OpenSSL, and pycurl's has GnuTLS/3.7.9."),
        ("10.0.0", None, "CurlTransport needs a libcurl with OpenSSL, and pycurl's has no TLS."),
        ("8.16.0-DEV", "OpenSSL/3.5.0", ""),
        ("10.0.0", "OpenSSL/4.0.0", ""),
    ],
)
def test_lack(version: str, tls: str | None, words: str) -> None:
    """Whatever is missing is named, with what to do."""
    info: tuple[Any, ...] = (11, version, 0, "Linux", 0, tls)

    assert name_lack(info).startswith(words)
    assert bool(name_lack(info)) == bool(words)
    assert OLDEST == (8, 16, 0)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("missing", "CurlTransport needs pycurl, which cannot be imported ("),
        ("old", "CurlTransport needs libcurl 8.16.0 or later, and pycurl has 7.88.1."),
    ],
)
def test_system_check_says_so(module: str, words: str) -> None:
    """A transport that cannot be imported is an error of the system check, with the reason and the remedy."""
    script = CHECK.format(module=module)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.startswith("djwebhooks.E002 DJWEBHOOKS_TRANSPORT is 'djwebhooks.transports.curl.CurlTransport'")
    assert words in done.stdout
    assert "pip install" in done.stdout
