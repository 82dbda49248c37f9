"""Decide which URLs and which addresses webhooks may be sent to."""

import re
import socket
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import idna

from djwebhooks.conf import conf
from djwebhooks.exceptions import ConfigurationError, ForbiddenAddress, InvalidTarget

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
GetAddrInfo = Callable[..., Sequence[tuple[Any, ...]]]

URL_LENGTH_LIMIT = 2048

# `ipaddress` calls several of these global, and which ones changes with Python's version. Source: the special-purpose
# address registries of IANA (RFC 6890), and RFC 7526 for 192.88.99.0/24. 168.63.129.16 is Azure's WireServer, which trusts its
# virtual machines (learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16).
FORBIDDEN_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Only 2000::/3 is given out as global unicast, so all around it is refused: ::/8 with its compatible addresses,
# 64:ff9b:1::/48, 100::/64, 5f00::/16, fc00::/7, fe80::/10, fec0::/10, ff00::/8 and what IANA may yet give a meaning.
FORBIDDEN_V6 = tuple(
    IPv6Network(network)
    for network in (
        "::/3",
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
        "4000::/2",
        "8000::/1",
    )
)
NAT64 = IPv6Network("64:ff9b::/96")
# Their last 32 bits are an IPv4 address: mapped, translated (RFC 2765 section 2.1), NAT64 (RFC 6052), local NAT64 (RFC 8215).
ENDING_IN_V4 = (IPv6Network("::ffff:0:0/96"), IPv6Network("::ffff:0:0:0/96"), NAT64, IPv6Network("64:ff9b:1::/48"))
COMPATIBLE = IPv6Network("::/96")
# An interface identifier of ISATAP, whatever its bits for universal and group say (RFC 5214 section 6.1).
ISATAP, ISATAP_MASK = 0x5EFE, 0xFCFFFFFF

#: Addresses of one name that are tried at most.
MOST_ADDRESSES = 16

# Underscores are no part of a host name by RFC 952, but of names that exist.
LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
UNSENDABLE = re.compile(r"[\x00-\x20\x7f-\xa0\ud800-\udfff\\\s]")
# What RFC 3986 allows in a path or query, and "%", as what is escaped stays so.
UNESCAPED = "%/?:@!$&'()*+,;=-._~[]"


@lru_cache(maxsize=32)
def parse_networks(networks: tuple[str, ...]) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(network) for network in networks)
    except ValueError as exc:
        raise ConfigurationError(
            f"DJWEBHOOKS_ALLOWED_NETWORKS has a value that is no network: {exc}. Write it like '10.0.0.0/8'."
        ) from exc


@lru_cache(maxsize=32)
def parse_hosts(patterns: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(normalize_pattern(pattern) for pattern in patterns)
    except (InvalidTarget, ValueError) as exc:
        raise ConfigurationError(
            f"DJWEBHOOKS_FORBIDDEN_HOSTS is {patterns!r}, not all of them hosts. Write them like 'example.com', '.example.com'."
        ) from exc


@lru_cache(maxsize=32)
def find_own_names(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the application's own *hosts* by which others may know it: names and public addresses, in normal form."""
    names = []
    for host in hosts:
        try:
            name = normalize_pattern(host)
            is_address = ":" in name or parse_literal(name) is not None
        except (InvalidTarget, ValueError):  # "*" is none.
            continue
        # One that is forbidden anyway is left to DJWEBHOOKS_ALLOWED_NETWORKS.
        if not (is_forbidden(name, ()) if is_address else is_localhost(name)):
            names.append(name)
    return tuple(names)


def normalize_pattern(pattern: str) -> str:
    """Return a host's normal form without the last dot; the first dot of ``.example.com`` stays."""
    if ":" in pattern:
        address = parse_v6(pattern.strip("[]"))
        return str(address.ipv4_mapped or address)
    name = encode_host(pattern.removeprefix(".")).removesuffix(".")
    return "." + name if pattern.startswith(".") else parse_literal(name) or name


def is_forbidden_host(host: str) -> bool:
    """Return whether webhooks may not be sent to *host*, an ASCII name or address, or to an IPv4 address inside it.

    What a name leads to is not looked up: :func:`resolve` asks about each of its addresses.
    """
    given = conf.FORBIDDEN_HOSTS
    patterns = find_own_names(tuple(conf.own_hosts)) if given is None else parse_hosts(tuple(given))
    return any(fits(name, pattern) for name in list_names(host) for pattern in patterns)


def fits(name: str, pattern: str) -> bool:
    return name == pattern.removeprefix(".") or (pattern[0] == "." and name.endswith(pattern))


def list_names(host: str) -> list[str]:
    """Return what *host* is called in normal form: a name, or an address and the IPv4 addresses that it leads to."""
    name = host.lower().removesuffix(".").partition("%")[0]
    try:
        address = IPv6Address(name)
    except AddressValueError:
        return [name]
    return [str(address), *map(str, list_embedded(address))]


def is_forbidden_port(port: int) -> bool:
    return conf.ALLOWED_PORTS is not None and port not in conf.ALLOWED_PORTS


def list_embedded(address: IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that *address* leads to, or claims to."""
    number = int(address)
    found = []
    is_compatible = address in COMPATIBLE and number > 1  # Not :: and ::1.
    if is_compatible or is_in(address, ENDING_IN_V4) or number >> 32 & ISATAP_MASK == ISATAP:
        found.append(IPv4Address(number & 0xFFFFFFFF))
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    return found + list(address.teredo or ())


def is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def is_refused(address: Address, allowed: tuple[Network, ...]) -> bool:
    if isinstance(address, IPv4Address):
        return not is_in(address, allowed) and (is_in(address, FORBIDDEN_V4) or not address.is_global)
    # Allowing an IPv6 network does not allow what lies behind a tunnel in it.
    if any(is_refused(embedded, allowed) for embedded in list_embedded(address)):
        return True
    if is_in(address, allowed) or address.ipv4_mapped is not None or address in NAT64:
        return False
    return is_in(address, FORBIDDEN_V6) or not address.is_global


def is_forbidden(address: str, allowed: Sequence[str] | None = None) -> bool:
    """Return whether webhooks may not be sent to *address*.

    *address* is an IPv4 or IPv6 address as text; what is not one is forbidden. *allowed* are networks that are permitted
    whatever they are, by default ``DJWEBHOOKS_ALLOWED_NETWORKS``. Raises ConfigurationError if one of them is no network.
    """
    networks = parse_networks(tuple(conf.ALLOWED_NETWORKS if allowed is None else allowed))
    name, _, zone = address.partition("%")
    try:
        parsed = ip_address(name)
    except ValueError:
        return True
    # Only addresses of this very link have a zone, so no forged one is to pass for global.
    return is_refused(parsed, networks) or bool(zone and not is_in(parsed, networks))


def resolve(host: str, port: int, *, getaddrinfo: GetAddrInfo = socket.getaddrinfo) -> list[str]:
    """Return the addresses of *host*, an ASCII name or address, in the order in which to try them, and not more than a few.

    Raises ForbiddenAddress if any of them is forbidden, even beside good ones: whoever mixes them is up to something. Raises it
    for a forbidden host or port, too, as settings may have changed since the URL was accepted.
    Raises socket.gaierror if there are none (:func:`name_dns_fault` tells why), OSError if this machine cannot look it up, and
    UnicodeError if *host* is not ASCII, as resolvers differ in what they make of such names.
    """
    host.encode("ascii")
    if is_forbidden_port(port):
        raise ForbiddenAddress(f"The port {port} is forbidden. If it is meant, add it to DJWEBHOOKS_ALLOWED_PORTS.")
    if is_forbidden_host(host):
        raise ForbiddenAddress(
            f"The host {host} is forbidden. If it is meant, set DJWEBHOOKS_FORBIDDEN_HOSTS to a list without it."
        )
    found = getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    if not addresses:
        raise socket.gaierror(socket.EAI_NONAME, "No address is associated with the name")
    for address in addresses:
        if is_forbidden(address):
            raise ForbiddenAddress(
                f"{host} has the forbidden address {address}. If it is meant, add its network to DJWEBHOOKS_ALLOWED_NETWORKS."
            )
        if is_forbidden_host(address):
            raise ForbiddenAddress(
                f"{host} has the address {address}, which is forbidden. If it is meant, set DJWEBHOOKS_FORBIDDEN_HOSTS to a list "
                "without it."
            )
    return addresses[:MOST_ADDRESSES]


def name_dns_fault(exc: socket.gaierror) -> str:
    """Return the error word of a failed lookup: ``no_dns_server``, ``out_of_sockets`` or ``dns_error``."""
    if exc.errno == socket.EAI_AGAIN:
        return "no_dns_server"
    return "out_of_sockets" if exc.errno == socket.EAI_MEMORY else "dns_error"


def check_url(url: str) -> str:
    """Return *url* in its normal form: ASCII, lower-case scheme and host, no default port, never an empty path.

    Looks nothing up: the addresses of a name are checked when it is connected to. Raises InvalidTarget if webhooks
    cannot or may not be sent to *url*, with a message that shows no more of it than was wrong.
    """
    if not isinstance(url, str):
        raise InvalidTarget(f"A URL is a string, not {url!r}.", "type")
    parts = split(url)
    host = check_host(parts)
    port = check_port(parts)
    literal = f"[{host}]" if ":" in host else host
    query = f"?{escape(parts.query)}" if parts.query else ""
    normal = f"{parts.scheme}://{literal}{port}{escape(parts.path) or '/'}{query}"
    if len(normal) > URL_LENGTH_LIMIT:
        raise too_long(len(normal))
    return normal


def has_same_origin(url: str, other: str) -> bool:
    """Whether both have one scheme, host and port (RFC 6454, section 5)."""
    try:
        one, two = urlsplit(check_url(url)), urlsplit(check_url(other))
    except InvalidTarget:
        return False
    return (one.scheme, one.netloc) == (two.scheme, two.netloc)  # In normal form.


def cut_to_origin(url: str) -> str:
    """Return the scheme, host and port of *url*, without what may be anybody's data; nothing of what is no URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def split(url: str) -> SplitResult:
    if len(url) > URL_LENGTH_LIMIT:
        raise too_long(len(url))
    if unsendable := UNSENDABLE.search(url):
        raise InvalidTarget(
            f"The URL has the character {unsendable[0]!r} at position {unsendable.start()}. Remove or escape it.", "character"
        )
    if "#" in url:
        raise InvalidTarget("The URL has a fragment, which is never sent. Remove the # and what follows.", "fragment")
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise InvalidTarget("The URL's host cannot be read. Write it like https://example.com/path.", "host") from exc
    check_scheme(parts.scheme, url)
    if "@" in parts.netloc:
        raise InvalidTarget("The URL has a user name or password. Use the target's headers to authenticate.", "credentials")
    return parts


def check_scheme(scheme: str, url: str) -> None:
    # A text such as "no" allows nothing; a system check complains of it.
    if scheme == "https" or (scheme == "http" and conf.ALLOW_HTTP is True):
        return
    if not scheme:
        raise InvalidTarget(f"{begin(url)!r} is no URL: write all of it, as in https://example.com/hook.", "scheme")
    hint = " http:// needs DJWEBHOOKS_ALLOW_HTTP." if scheme == "http" else ""
    raise InvalidTarget(f"The URL begins with {scheme!r}. Use https://.{hint}", "scheme")


def begin(url: str) -> str:
    """Return the beginning of *url*, which holds no password, path or query."""
    word = re.split(r"[/?@:]", url.lstrip("/"), maxsplit=1)[0]
    return word if word == url else f"{word}…"


def check_port(parts: SplitResult) -> str:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise InvalidTarget("The URL's port is not a number from 1 to 65535. Correct it, or leave it out.", "port")
    default = {"http": 80, "https": 443}[parts.scheme]
    port = port or default
    if is_forbidden_port(port):
        allowed = ", ".join(map(str, conf.ALLOWED_PORTS or ()))
        raise InvalidTarget(f"The port {port} is forbidden. Use one of {allowed}.", "forbidden")
    return "" if port == default else f":{port}"


def check_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if not host:
        raise InvalidTarget("The URL has no host. Write it like https://example.com/path.", "host")
    # urlsplit takes anything in brackets, but only IPv6 addresses stand in them (RFC 3986 section 3.2.2).
    name = host if "[" in parts.netloc else encode_host(host)
    literal = parse_literal(name)
    if is_forbidden_host(literal or name):
        raise InvalidTarget(f"The host {name!r} is one that webhooks are not sent to. Use the receiver's own name.", "forbidden")
    if literal is None:
        if "[" in parts.netloc:
            raise InvalidTarget(f"The host [{host}] is no IPv6 address. Remove the brackets, or correct it.", "host")
        check_name(name)
        return name
    if is_forbidden(literal):
        raise InvalidTarget(f"The address {literal} is forbidden. Use the public name of the receiver.", "forbidden")
    return literal


def encode_host(host: str) -> str:
    """Return *host* in ASCII. UTS 46 also folds look-alikes such as full-width digits, so it comes before every check."""
    try:
        name = host.lower() if host.isascii() else idna.encode(host, uts46=True).decode("ascii")
    except UnicodeError as exc:
        raise InvalidTarget(f"The host {host!r} is no valid name. Correct it.", "host") from exc
    labels = name.removesuffix(".").split(".")
    if len(name) > 253 or not all(LABEL.fullmatch(label) for label in labels):
        raise InvalidTarget(f"The host {host!r} is no valid name. Correct it.", "host")
    return name


def parse_literal(host: str) -> str | None:
    """Return the address that *host* is, in whatever notation a resolver might take for one; None if it is a name."""
    try:
        if ":" in host:
            return str(parse_v6(host))
        number = host.removesuffix(".")
        if not NUMBER.fullmatch(number.rpartition(".")[2]):
            return None
        return str(IPv4Address(socket.inet_aton(number)))
    except (AddressValueError, OSError) as exc:
        raise InvalidTarget(f"The host {host!r} is no valid address. Correct it, or use a name.", "host") from exc


def parse_v6(host: str) -> IPv6Address:
    if "%" in host:
        raise AddressValueError("A zone means something on one machine only")
    return IPv6Address(host)


def is_localhost(name: str) -> bool:
    return name.removesuffix(".").rpartition(".")[2] == "localhost"


def check_name(name: str) -> None:
    if is_localhost(name) and is_forbidden("127.0.0.1") and is_forbidden("::1"):
        raise InvalidTarget(
            f"The host {name!r} is this machine, which is forbidden. Use the receiver's public name.", "forbidden"
        )


def escape(text: str) -> str:
    return quote(text, safe=UNESCAPED)


def too_long(length: int) -> InvalidTarget:
    return InvalidTarget(f"The URL has {length} characters; the most is {URL_LENGTH_LIMIT}. Use a shorter one.", "length")
