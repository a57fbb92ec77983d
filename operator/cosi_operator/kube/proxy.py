"""Selects the proxy for a server from the environment variables that client-go reads.

HTTPS_PROXY (for https servers) and HTTP_PROXY (for http servers) name the proxy. NO_PROXY names the
servers that are connected to directly. Upper case takes precedence over lower case. NO_PROXY is a
comma-separated list of:

| entry                            | matches                                         |
| -------------------------------- | ----------------------------------------------- |
| `*`                              | every server                                    |
| `10.1.2.3`, `10.0.0.0/8`, `fd00::/8` | a server whose name is such an address      |
| `example.com`                    | that name, and every name that ends with `.example.com` |
| `.example.com`, `*.example.com`  | only names that end with `.example.com`         |
| `example.com:6443`, `[fd00::1]:6443` | the same, on that port only                 |

`localhost` and loopback addresses are never proxied. The selection never resolves a name.

Source: golang.org/x/net/http/httpproxy, which client-go uses through http.ProxyFromEnvironment.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

DEFAULT_PORTS = {"http": "80", "https": "443"}
VARIABLES = {"https": ("HTTPS_PROXY", "https_proxy"), "http": ("HTTP_PROXY", "http_proxy")}
NO_PROXY = ("NO_PROXY", "no_proxy")

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address
type Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class FromEnvironment:
    """The proxy's URL and the variable that names it. The URL may contain a password."""

    url: str
    variable: str

    def __repr__(self) -> str:
        return f"FromEnvironment(variable={self.variable!r})"


@dataclass(frozen=True, slots=True)
class _Target:
    """A server, in the form that is compared with the entries of NO_PROXY."""

    host: str
    port: str
    address: Address | None


def proxy_for(server: str, environ: Mapping[str, str]) -> FromEnvironment | None:
    """Return the proxy for `server` (a URL); None for a direct connection.

    As in client-go, a value without a scheme is an http proxy. The caller must check the URL.
    """
    parts = urlsplit(server)
    variable, value = _first(environ, VARIABLES.get(parts.scheme, ()))
    target = _target(parts)
    if not value or _is_local(target):
        return None
    _, exceptions = _first(environ, NO_PROXY)
    if any(_matches(target, entry) for entry in _entries(exceptions)):
        return None
    return FromEnvironment(lower_scheme(value if "://" in value else f"http://{value}"), variable)


def lower_scheme(url: str) -> str:
    """The URL with its scheme in lower case, because URLs are compared with `https:`."""
    scheme, colon, rest = url.partition(":")
    return f"{scheme.lower()}{colon}{rest}"


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, str]:
    """The name and value of the first variable that is not empty; ("", "") if all are empty."""
    return next(((name, text) for name in names if (text := environ.get(name))), ("", ""))


def _target(parts: SplitResult) -> _Target:
    host = (parts.hostname or "").lower()
    port = str(parts.port or DEFAULT_PORTS.get(parts.scheme, ""))
    return _Target(host, port, _address(host))


def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    # Go treats 10.0.0.1 and ::ffff:10.0.0.1 as equal.
    return getattr(found, "ipv4_mapped", None) or found


def _is_local(target: _Target) -> bool:
    if target.address is not None:
        return target.address.is_loopback
    return target.host in ("", "localhost")


def _entries(text: str) -> Iterator[str]:
    return (entry for word in text.split(",") if (entry := word.strip().lower()))


def _matches(target: _Target, entry: str) -> bool:
    if entry == "*":
        return True
    if (network := _network(entry)) is not None:
        return target.address is not None and target.address in network
    host, port = _split_port(entry)
    if not host or port not in ("", target.port):
        return False
    if (address := _address(host)) is not None:
        return target.address == address
    host = host.removeprefix("*") if host.startswith("*.") else host
    ascii_host = _ascii(host)
    if ascii_host.startswith("."):
        return target.host.endswith(ascii_host)
    return target.host == ascii_host or target.host.endswith(f".{ascii_host}")


def _network(entry: str) -> Network | None:
    _, slash, bits = entry.partition("/")
    if not slash or not (bits.isascii() and bits.isdigit()):  # Go accepts no netmask
        return None
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _split_port(entry: str) -> tuple[str, str]:
    """Host and port of an entry; "" for no port. An address in brackets needs a port, as in Go."""
    if entry.startswith("["):
        host, closed, port = entry[1:].partition("]:")
        return (host, port) if closed and ":" not in port else (entry, "")
    host, colon, port = entry.partition(":")
    return (host, port) if colon and ":" not in port else (entry, "")


def _ascii(host: str) -> str:
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return host
