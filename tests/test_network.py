"""Which URLs and addresses webhooks may be sent to."""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from djwebhooks.exceptions import ConfigurationError, ForbiddenAddress, InvalidTarget
from djwebhooks.network import MOST_ADDRESSES, check_url, is_forbidden, is_forbidden_host, name_dns_fault, resolve

FORBIDDEN_NETWORKS = [
    *["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"],
    *[
        "168.63.129.16/32",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
    ],
    *["224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32"],
    *["::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16"],
    *["fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "::ffff:127.0.0.0/104", "64:ff9b::10.0.0.0/104"],
]
FORBIDDEN_V4 = [ipaddress.ip_network(network) for network in FORBIDDEN_NETWORKS if ":" not in network]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "168.63.129.15",
    "172.32.0.1",
    "192.0.1.1",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "2001:4860:4860::8888",
]


@pytest.fixture(autouse=True)
def strict(settings: LazySettings) -> None:
    settings.DJWEBHOOKS_ALLOW_HTTP = False
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ()


@st.composite
def forbidden_v4(draw: st.DrawFn) -> ipaddress.IPv4Address:
    network = draw(st.sampled_from(FORBIDDEN_V4))
    return network[draw(st.integers(0, network.num_addresses - 1))]


def embed(address: ipaddress.IPv4Address, prefix: int = 0) -> dict[str, ipaddress.IPv6Address]:
    """Return *address* in each form of IPv6 that stands for an IPv4 address; *prefix* fills the bits that are free."""
    number = int(address)
    forms = {
        "mapped": number | 0xFFFF << 32,
        "compatible": number,
        "translated": number | 0xFFFF << 48,
        "NAT64": 0x64FF9B << 96 | number,
        "local NAT64": 0x64FF9B0001 << 80 | (prefix & 0xFFFFFFFFFFFF) << 32 | number,
        "6to4": 0x2002 << 112 | number << 80 | prefix,
        "Teredo's server": 0x20010000 << 96 | number << 64 | prefix,
        "Teredo's client": 0x20010000 << 96 | prefix << 32 | number ^ 0xFFFFFFFF,
        "ISATAP": (0x2606470000000000 ^ prefix >> 16) << 64 | 0x5EFE << 32 | number,
        "public ISATAP": (0x2606470000000000 ^ prefix >> 16) << 64 | 0x02005EFE << 32 | number,
        "group ISATAP": (0x2606470000000000 ^ prefix >> 16) << 64 | 0x03005EFE << 32 | number,
    }
    return {name: ipaddress.IPv6Address(form) for name, form in forms.items()}


def spell(address: ipaddress.IPv4Address, bases: list[str], count: int) -> str:
    """Return *address* in *count* numbers, each in its base: ``"0x{:x}"``, ``"0{:o}"`` or ``"{}"``."""
    octets = list(address.packed)
    parts = [*octets[: count - 1], int.from_bytes(bytes(octets[count - 1 :]))]
    return ".".join(base.format(part) for base, part in zip(bases, parts, strict=False))


def lookup(*addresses: str) -> Callable[..., list[tuple[Any, ...]]]:
    def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return getaddrinfo


# Addresses.


@pytest.mark.parametrize("network", FORBIDDEN_NETWORKS)
def test_special_networks_are_forbidden(network: str) -> None:
    """Every special-purpose network is forbidden from its first address to its last."""
    parsed = ipaddress.ip_network(network)

    assert all(is_forbidden(str(address)) for address in (parsed[0], parsed[parsed.num_addresses // 2], parsed[-1]))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    """Ordinary public addresses are allowed."""
    assert not is_forbidden(address)


@pytest.mark.parametrize(
    "address",
    [
        *[
            "192.88.99.1",
            "192.0.0.8",
            "192.0.0.9",
            "224.0.0.1",
            "::7f00:1",
            "::ffff:0:7f00:1",
            "::5efe:7f00:1",
            "64:ff9b::7f00:1",
        ],
        *["64:ff9b:1::1", "2002:808:808::1", "3fff::1", "5f00::1", "fec0::1", "ff0e::1"],
    ],
)
def test_what_ipaddress_calls_global(address: str) -> None:
    """Addresses that ipaddress calls global on some Python are forbidden all the same."""
    assert is_forbidden(address)


@pytest.mark.parametrize("form", ["::ffff:{}", "64:ff9b::{}", "2606:4700::5efe:{}", "2606:4700::200:5efe:{}"])
def test_embedded_address_decides(form: str) -> None:
    """A mapped, NAT64 or ISATAP address is as forbidden as the IPv4 address in it."""
    assert is_forbidden(form.format("10.0.0.1"))
    assert not is_forbidden(form.format("8.8.8.8"))


@pytest.mark.parametrize("address", ["::8.8.8.8", "2002:808:808::1", "2001:0:808:808::1", "fd00::5efe:808:808"])
def test_obsolete_tunnels_are_forbidden(address: str) -> None:
    """Compatible, 6to4 and Teredo addresses are forbidden even with a public address in them, ISATAP inside a private prefix."""
    assert is_forbidden(address)


@pytest.mark.parametrize(
    "address", ["fe80::1%eth0", "2606:4700:4700::1111%eth0", "", "localhost", "8.8.8.8/32", "8.8.8", "1.2.3.4.5"]
)
def test_what_is_not_understood_is_forbidden(address: str) -> None:
    """What has a zone or is no address is forbidden."""
    assert is_forbidden(address)


@given(st.ip_addresses(v=4))
def test_no_private_address_is_ever_allowed(address: ipaddress.IPv4Address) -> None:
    """Whatever ipaddress calls not global is forbidden, also inside IPv6."""
    if not address.is_global:
        assert all(is_forbidden(form.format(address), ()) for form in ("{}", "::ffff:{}", "64:ff9b::{}", "::{}"))


@given(forbidden_v4(), st.integers(0, 2**32 - 1))
def test_no_embedding_of_a_forbidden_address_is_allowed(address: ipaddress.IPv4Address, prefix: int) -> None:
    """A forbidden IPv4 address is forbidden in every form of IPv6, even where all of IPv6 is allowed."""
    for name, form in embed(address, prefix).items():
        if int(form) > 1:
            assert is_forbidden(str(form), ()), name
            assert is_forbidden(str(form), ["::/0"]), name


@given(forbidden_v4(), st.integers(0, 2**32 - 1))
def test_no_embedding_of_a_forbidden_address_is_connected_to(address: ipaddress.IPv4Address, prefix: int) -> None:
    """Nor does any pass as a host in a URL, or as what a name is resolved to."""
    for form in embed(address, prefix).values():
        with pytest.raises(InvalidTarget):
            check_url(f"https://[{form.exploded}]/")
        with pytest.raises(ForbiddenAddress):
            resolve("x.example", 443, getaddrinfo=lookup("8.8.8.8", str(form)))


@given(
    forbidden_v4(),
    st.lists(st.sampled_from(["{}", "0{:o}", "0x{:x}", "0X{:X}", "000{:o}", "0x00{:x}"]), min_size=4, max_size=4),
    st.integers(1, 4),
    st.sampled_from(["", "."]),
    st.sampled_from(["0123456789", "０１２３４５６７８９", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗", "⁰¹²³⁴⁵⁶⁷⁸⁹"]),
    st.sampled_from([".", "。", "．", "｡"]),
)
def test_no_spelling_of_a_forbidden_address_is_accepted(
    address: ipaddress.IPv4Address, bases: list[str], count: int, end: str, digits: str, dot: str
) -> None:
    """Numbers of any base and count, in the digits and dots of any script that IDNA folds, are the address that they are."""
    spelling = (spell(address, bases, count) + end).translate(str.maketrans("0123456789.", digits + dot))

    with pytest.raises(InvalidTarget) as caught:
        check_url(f"https://{spelling}/")

    assert caught.value.code == "forbidden"


@given(st.ip_addresses(v=6))
def test_nothing_outside_global_unicast_is_allowed(address: ipaddress.IPv6Address) -> None:
    """An IPv6 address outside 2000::/3 is allowed only if it stands for a public IPv4 address."""
    if not is_forbidden(str(address), ()):
        prefixes = ("2000::/3", "::ffff:0:0/96", "64:ff9b::/96")
        assert any(address in ipaddress.ip_network(prefix) for prefix in prefixes)


def test_allowed_networks_open_a_range(settings: LazySettings) -> None:
    """What DJWEBHOOKS_ALLOWED_NETWORKS names is allowed, and nothing else becomes so."""
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ["10.1.0.0/16", "fd00::/8", "fe80::/10"]

    assert not is_forbidden("10.1.2.3")
    assert not is_forbidden("::ffff:10.1.2.3")
    assert not is_forbidden("fd00::1")
    assert not is_forbidden("fe80::1%eth0")
    assert is_forbidden("10.2.0.1")
    assert is_forbidden("127.0.0.1")


@pytest.mark.parametrize(
    ("network", "private", "public"),
    [
        ("64:ff9b:1::/48", "64:ff9b:1::10.0.0.1", "64:ff9b:1::8.8.8.8"),
        ("::ffff:0:0:0/96", "::ffff:0:10.0.0.1", "::ffff:0:8.8.8.8"),
        ("2002::/16", "2002:a00:1::1", "2002:808:808::1"),
        ("2001::/32", "2001:0:808:808:0:0:f5ff:fffe", "2001:0:808:808:0:0:f7f7:f7f7"),
        ("fd00::/8", "fd00::5efe:10.0.0.1", "fd00::5efe:8.8.8.8"),
        ("fe80::/10", "fe80::200:5efe:10.0.0.1", "fe80::200:5efe:8.8.8.8"),
    ],
)
def test_an_allowed_network_does_not_allow_what_lies_behind_a_tunnel(network: str, private: str, public: str) -> None:
    """Where a network of tunnels is allowed, the IPv4 address at their end decides still; it may be allowed, too."""
    assert is_forbidden(private, [network])
    assert not is_forbidden(public, [network])
    assert not is_forbidden(private, [network, "10.0.0.0/8"])


def test_loopback_and_unspecified_are_no_embedded_addresses() -> None:
    """:: and ::1 stand for no IPv4 address, so they can be allowed alone."""
    assert not is_forbidden("::1", ["::1/128"])
    assert not is_forbidden("::", ["::/128"])


def test_allowed_networks_can_be_passed() -> None:
    """The argument takes the place of the setting."""
    assert not is_forbidden("127.0.0.1", ["127.0.0.0/8"])


def test_allowed_network_that_is_none() -> None:
    """A network that cannot be read is an error that names the setting and the value."""
    with pytest.raises(ConfigurationError, match=r"DJWEBHOOKS_ALLOWED_NETWORKS.*10\.0\.0\.1/8"):
        is_forbidden("10.0.0.1", ["10.0.0.1/8"])


# Names.


def test_resolve_returns_each_address_once() -> None:
    """All addresses of a name are returned, in the resolver's order, without repetition."""
    assert resolve("x.example", 443, getaddrinfo=lookup("8.8.8.8", "1.1.1.1", "8.8.8.8")) == ["8.8.8.8", "1.1.1.1"]


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["127.0.0.1", "8.8.8.8"]])
def test_resolve_refuses_if_any_address_is_forbidden(addresses: list[str]) -> None:
    """One forbidden address refuses the name, and the error is no OSError that urllib3 would wrap."""
    with pytest.raises(ForbiddenAddress) as caught:
        resolve("x.example", 443, getaddrinfo=lookup(*addresses))

    assert not isinstance(caught.value, OSError)


def test_resolve_returns_a_few_of_many() -> None:
    """Of a name with very many addresses only the first are tried, though all of them are checked."""
    many = [f"8.8.{number // 256}.{number % 256}" for number in range(500)]

    assert resolve("x.example", 443, getaddrinfo=lookup(*many)) == many[:MOST_ADDRESSES]
    with pytest.raises(ForbiddenAddress):
        resolve("x.example", 443, getaddrinfo=lookup(*many, "10.0.0.1"))


@pytest.mark.parametrize("host", ["bücher.example", "ｌocalhost", "127。0。0。1"])
def test_resolve_takes_ascii_only(host: str) -> None:
    """A name that resolvers may each read in another way is not looked up."""
    with pytest.raises(UnicodeError):
        resolve(host, 443, getaddrinfo=lookup("8.8.8.8"))


def test_resolve_of_nothing() -> None:
    """A name without addresses does not exist."""
    with pytest.raises(socket.gaierror) as caught:
        resolve("x.example", 443, getaddrinfo=lookup())

    assert name_dns_fault(caught.value) == "dns_error"


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "::1"])
def test_resolve_sees_through_notations(host: str) -> None:
    """The system's resolver understands other notations of an address, and so they are checked."""
    with pytest.raises(ForbiddenAddress):
        resolve(host, 80)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (socket.EAI_NONAME, "dns_error"),
        (socket.EAI_FAIL, "dns_error"),
        (socket.EAI_AGAIN, "no_dns_server"),
        (socket.EAI_MEMORY, "out_of_sockets"),
    ],
)
def test_dns_fault(code: int, word: str) -> None:
    """A failed lookup is the name's fault, the DNS server's or our machine's."""
    assert name_dns_fault(socket.gaierror(code, "failed")) == word


# URLs.


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://Example.COM:443/Path", "https://example.com/Path"),
        ("https://example.com:8443/a?b=c&d", "https://example.com:8443/a?b=c&d"),
        ("https://example.com:/", "https://example.com/"),
        ("https://example.com./", "https://example.com./"),
        ("https://straße.example/ü?q=ä%41", "https://xn--strae-oqa.example/%C3%BC?q=%C3%A4%41"),
        ("https://my_host.example/{id}", "https://my_host.example/%7Bid%7D"),
        ("https://0x08080808/", "https://8.8.8.8/"),
        ("https://[2606:4700:4700:0::1111]:444/x", "https://[2606:4700:4700::1111]:444/x"),
    ],
)
def test_normal_form(url: str, normal: str) -> None:
    """A URL is returned in ASCII, with a lower-case host and no needless port, and its normal form stays as it is."""
    assert check_url(url) == normal
    assert check_url(normal) == normal


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://example.com/", "scheme"),
        ("ftp://example.com/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("example.com/hook", "scheme"),
        ("", "scheme"),
        ("https://", "host"),
        ("https:///path", "host"),
        ("https://?x", "host"),
        ("https://-a.example/", "host"),
        ("https://a..example/", "host"),
        ("https://%6cocalhost/", "host"),
        (f"https://{'a' * 64}.example/", "host"),
        (f"https://{'a.' * 130}example/", "host"),
        ("https://ex\u00ad\u2028.example/", "character"),
        ("https://\u0378.example/", "host"),
        ("https://[::1/", "host"),
        ("https://[example.com]/", "host"),
        ("https://[v1.a]/", "host"),
        ("https://[::g]/", "host"),
        ("https://[fe80::1%25eth0]/", "host"),
        ("https://1.2.3.4.5/", "host"),
        ("https://256.1.1.1/", "host"),
        ("https://me:secret@example.com/", "credentials"),
        ("https://example.com@evil.example/", "credentials"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https://example.com/a b", "character"),
        ("https://example.com/a\n", "character"),
        ("https://example.com/\x00", "character"),
        ("https://example.com\\@evil.example/", "character"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "port"),
        ("https://example.com:x/", "port"),
        ("https://example.com/" + "a" * 2048, "length"),
        ("https://example.com/" + "\u00fc" * 500, "length"),
    ],
)
def test_refused_url(url: str, code: str) -> None:
    """A URL that cannot be sent to, or whose parts are misleading, is refused with the code of what is wrong."""
    with pytest.raises(InvalidTarget) as caught:
        check_url(url)

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nonsense", "'nonsense' is no URL: write all of it, as in https://example.com/hook."),
        ("example.com/hook?token=secret", "'example.com…' is no URL"),
        ("//me:secret@example.com/", "'me…' is no URL"),
        ("?token=secret", "'…' is no URL"),
        ("ftp://example.com/?token=secret", "The URL begins with 'ftp'. Use https://."),
    ],
)
def test_what_is_no_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    """The message has the first word, which is what was mistaken for a URL."""
    with pytest.raises(InvalidTarget) as caught:
        check_url(url)
    [message] = caught.value.messages

    assert message.startswith(shown)
    assert "secret" not in message


@pytest.mark.parametrize("value", ["no", "yes", 1])
def test_only_true_allows_http(settings: LazySettings, value: object) -> None:
    """A text that means no must not mean yes."""
    settings.DJWEBHOOKS_ALLOW_HTTP = value

    with pytest.raises(InvalidTarget, match="DJWEBHOOKS_ALLOW_HTTP"):
        check_url("http://example.com/")


@pytest.mark.parametrize(
    "host",
    [
        *["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001", "0177.0.0.1", "127.0.0.1."],
        *["[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "0", "10.0.0.1", "169.254.169.254", "[fd00:ec2::254]"],
        *["localhost", "LOCALHOST", "localhost.", "api.localhost", "１２７。０。０。１", "①②⑦.0.0.1"],
        *[
            "ｌｏｃａｌｈｏｓｔ",
            "localhost。",
            "api。localhost｡",
            "local\u200bhost",
            "local\u00adhost",
            "local\ufeffhost",
            "ℓocalhost",
        ],
        *["[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::127.0.0.1]", "[2002:7f00:1::]", "[2001::80ff:fffe]"],
        *["[::127.0.0.1]", "[0:0:0:0:0:0:0:1]", "[2606:4700::5efe:127.0.0.1]", "[fe80::1]", "[ff02::1]", "[FD00:EC2::254]"],
    ],
)
def test_forbidden_host(host: str) -> None:
    """A forbidden address is refused in every notation, and so are this machine's own names."""
    with pytest.raises(InvalidTarget) as caught:
        check_url(f"https://{host}/")

    assert caught.value.code == "forbidden"


@pytest.mark.parametrize(
    "host",
    ["localhost..", "local host", "127.0.0.1..", "0x7g.1", "[::1%25lo]", "[::1%lo]", "[::ffff:127.0.0.1%1]", "a\u200d.b", "①"],
)
def test_host_that_is_none(host: str) -> None:
    """Empty labels, zones, joiners that join nothing and numbers that are none are no host."""
    with pytest.raises(InvalidTarget):
        check_url(f"https://{host}/")


@pytest.mark.parametrize(
    ("host", "normal"),
    [("faß.example", "xn--fa-hia.example"), ("σίς.example", "xn--kxa2bb.example"), ("FASS.example", "fass.example")],
)
def test_deviations_of_idna_keep_their_own_name(host: str, normal: str) -> None:
    """ß and ς are not folded to ss and σ, which may be somebody else's name."""
    assert check_url(f"https://{host}/") == f"https://{normal}/"


# Ports and hosts that settings forbid.


@pytest.mark.parametrize("url", ["https://example.com/", "https://example.com:443/", "https://example.com:8443/"])
def test_allowed_port(settings: LazySettings, url: str) -> None:
    """A port that DJWEBHOOKS_ALLOWED_PORTS has is accepted, written or not."""
    settings.DJWEBHOOKS_ALLOWED_PORTS = [443, 8443]

    assert check_url(url)


@pytest.mark.parametrize(
    "url", ["https://example.com:22/", "https://example.com:80/", "http://example.com/", "https://[2606:4700::1]:25/"]
)
def test_forbidden_port(settings: LazySettings, url: str) -> None:
    """Any other port is refused, also the one that is not written, and the message says which there are."""
    settings.DJWEBHOOKS_ALLOW_HTTP = True
    settings.DJWEBHOOKS_ALLOWED_PORTS = [443, 8443]

    with pytest.raises(InvalidTarget, match="Use one of 443, 8443") as caught:
        check_url(url)

    assert caught.value.code == "forbidden"


def test_forbidden_port_is_not_connected_to(settings: LazySettings) -> None:
    """A port that was allowed when the target was made is checked again before the lookup."""
    settings.DJWEBHOOKS_ALLOWED_PORTS = [443]

    with pytest.raises(ForbiddenAddress, match="DJWEBHOOKS_ALLOWED_PORTS"):
        resolve("x.example", 6379, getaddrinfo=lookup("8.8.8.8"))


#: Hosts in settings, hosts of URLs that they forbid, and hosts that they do not.
HOSTS = [
    (["app.example"], ["app.example", "APP.example.", "ａpp。example"], ["www.app.example", "xapp.example", "example"]),
    ([".app.example"], ["app.example", "a.b.app.example", "A.app.example."], ["xapp.example", "app.example.com"]),
    (["Bücher.example"], ["bücher.example", "xn--bcher-kva.example", "BÜCHER.example"], ["bucher.example"]),
    (["app.example."], ["app.example", "app.example."], []),
]


@pytest.mark.parametrize("name", ["ALLOWED_HOSTS", "DJWEBHOOKS_FORBIDDEN_HOSTS"])
@pytest.mark.parametrize(("patterns", "forbidden", "allowed"), HOSTS)
def test_forbidden_names(
    settings: LazySettings, name: str, patterns: list[str], forbidden: list[str], allowed: list[str]
) -> None:
    """The application's own names are refused in every spelling, as are those of the setting; others are not."""
    setattr(settings, name, patterns)

    for host in forbidden:
        with pytest.raises(InvalidTarget) as caught:
            check_url(f"https://{host}/")
        assert caught.value.code == "forbidden"
    assert all(check_url(f"https://{host}/") for host in allowed)


def test_own_name_is_not_connected_to(settings: LazySettings) -> None:
    """A name that has become the application's own is checked again before the lookup."""
    settings.ALLOWED_HOSTS = [".app.example"]

    for host in ("app.example", "www.APP.example."):
        with pytest.raises(ForbiddenAddress, match="DJWEBHOOKS_FORBIDDEN_HOSTS"):
            resolve(host, 443, getaddrinfo=lookup("8.8.8.8"))


def test_hosts_that_are_no_names_of_the_application(settings: LazySettings) -> None:
    """Of ALLOWED_HOSTS neither "*" nor private addresses nor local names forbid anything: addresses are checked as such."""
    settings.ALLOWED_HOSTS = ["*", "10.0.0.1", "[fd00::1]", "127.0.0.1", "localhost", ".localhost", ".8.8.8.8", "no host", ""]
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ["127.0.0.0/8", "10.0.0.0/8", "fd00::/8"]

    assert all(check_url(f"https://{host}/") for host in ("10.0.0.1", "[fd00::1]", "127.0.0.1", "localhost", "example.com"))


@pytest.mark.parametrize("name", ["ALLOWED_HOSTS", "DJWEBHOOKS_FORBIDDEN_HOSTS"])
def test_addresses_can_be_forbidden_hosts(settings: LazySettings, name: str) -> None:
    """A public address of the application, or one in the setting, is refused in every notation, whatever networks are allowed."""
    setattr(settings, name, ["8.8.8.8", "[2606:4700:0::1]"])
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ["8.0.0.0/8"]

    for host in ("8.8.8.8", "0x08080808", "010.8.8.8", "[2606:4700::1]", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]"):
        with pytest.raises(InvalidTarget, match="not sent to"):
            check_url(f"https://{host}/")
    assert check_url("https://8.8.4.4/")


@pytest.mark.parametrize("address", ["8.8.8.8", "::ffff:8.8.8.8", "2606:4700::1", "2606:4700:0:0::1"])
def test_no_name_leads_to_a_forbidden_host(settings: LazySettings, address: str) -> None:
    """A name that has such an address, be it beside good ones, is not connected to."""
    settings.DJWEBHOOKS_FORBIDDEN_HOSTS = ["[::ffff:8.8.8.8]", "[2606:4700:0::1]"]

    for host in ("x.example", address):
        with pytest.raises(ForbiddenAddress, match="DJWEBHOOKS_FORBIDDEN_HOSTS"):
            resolve(host, 443, getaddrinfo=lookup("8.8.4.4", address))


@given(st.ip_addresses(v=4), st.integers(0, 2**32 - 1))
def test_no_embedding_of_a_forbidden_host_is_allowed(address: ipaddress.IPv4Address, prefix: int) -> None:
    """An IPv4 address that is a forbidden host is so in every form of IPv6, whatever networks are allowed."""
    with override_settings(DJWEBHOOKS_FORBIDDEN_HOSTS=[str(address)]):
        forms = {name: str(form) for name, form in embed(address, prefix).items() if int(form) > 1}

        assert [name for name, form in forms.items() if not is_forbidden_host(form)] == []
        assert is_forbidden_host(f"{forms['mapped']}%eth0")


def test_own_names_can_be_allowed(settings: LazySettings) -> None:
    """An empty DJWEBHOOKS_FORBIDDEN_HOSTS forbids no name, not even the application's own."""
    settings.ALLOWED_HOSTS = ["app.example"]
    settings.DJWEBHOOKS_FORBIDDEN_HOSTS = ()

    assert check_url("https://app.example/") == "https://app.example/"


def test_forbidden_host_that_is_none(settings: LazySettings) -> None:
    """A host that cannot be one is an error that names the setting and the value."""
    settings.DJWEBHOOKS_FORBIDDEN_HOSTS = ["*.example.com"]

    with pytest.raises(ConfigurationError, match=r"DJWEBHOOKS_FORBIDDEN_HOSTS.*\*\.example\.com"):
        check_url("https://example.com/")


@pytest.mark.parametrize("host", ["localhost", "api.localhost", "127.0.0.1", "2130706433"])
def test_allowed_loopback(settings: LazySettings, host: str) -> None:
    """With loopback allowed for development, its addresses and names are no longer refused."""
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ("127.0.0.0/8",)

    assert check_url(f"https://{host}/").startswith("https://")


def test_http_where_allowed(settings: LazySettings) -> None:
    """http:// is accepted with DJWEBHOOKS_ALLOW_HTTP, and has its own default port."""
    settings.DJWEBHOOKS_ALLOW_HTTP = True

    assert check_url("http://example.com:80/") == "http://example.com/"
    assert check_url("http://example.com:443/") == "http://example.com:443/"


def test_refusal_keeps_the_rest_of_the_url() -> None:
    """A message shows what was wrong, and neither a password nor the rest of the URL."""
    with pytest.raises(InvalidTarget) as caught:
        check_url("https://me:hunter2@example.com/token")

    assert "hunter2" not in str(caught.value)
    assert "token" not in str(caught.value)


def test_names_are_not_looked_up() -> None:
    """A name that does not exist is accepted: its addresses are checked at each connection."""
    assert check_url("https://does-not-exist.invalid/") == "https://does-not-exist.invalid/"


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_is_accepted_is_stable(host: str, rest: str) -> None:
    """A URL is either refused as an invalid target or has a normal form in ASCII that is its own."""
    try:
        normal = check_url(f"https://{host}/{rest}")
    except InvalidTarget:
        return
    assert normal.isascii()
    assert check_url(normal) == normal
