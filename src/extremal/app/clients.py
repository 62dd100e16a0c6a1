"""Clients of the app: who sends a request, by address and by a cookie that the server signs."""

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING

from extremal.errors import ExtremalValueError

if TYPE_CHECKING:
    from starlette.types import Scope

VISITOR_COOKIE = "extremal-visitor"
SCOPE_KEY = "extremal.client"  # of a request that was accepted


@dataclass(frozen=True)
class Client:
    """Sender of a request.

    Visitors of one address share what is allowed to an address. Those without a valid cookie count as one visitor: a
    client that invents names gains nothing.
    """

    address: str = ""  # IPv4 address, or the first 64 bits of an IPv6 address
    visitor: str = ""  # of the cookie; empty without

    @property
    def name(self) -> str:
        """Name by which a visitor's requests are counted."""
        return f"{self.address} {self.visitor}"


class Clients:
    """Identifies clients.

    Args:
        proxy: address of a reverse proxy whose `X-Forwarded-For` is believed; empty: none.

    Raises:
        ExtremalValueError: the proxy is not an address.
    """

    def __init__(self, proxy: str = "") -> None:
        self._secret = secrets.token_bytes(32)
        try:
            self.proxy = str(ipaddress.ip_address(proxy)) if proxy else ""
        except ValueError:
            raise ExtremalValueError(
                f"--proxy must be the IP address of a reverse proxy, got {proxy!r}; e.g. 127.0.0.1"
            ) from None

    def identify(self, scope: "Scope", headers: Mapping[str, str]) -> Client:
        """Return the sender of a request."""
        visitor, _, signature = read_cookie(headers.get("cookie", ""), self.cookie_name(scope)).partition(".")
        is_valid = visitor != "" and hmac.compare_digest(signature.encode(), self._sign(visitor).encode())
        return Client(self._address(scope, headers), visitor if is_valid else "")

    def new_cookie(self, scope: "Scope") -> str:
        """Return a header that names a new visitor; scripts and other sites cannot use the cookie."""
        visitor = secrets.token_urlsafe(12)
        value = f"{visitor}.{self._sign(visitor)}"
        return f"{self.cookie_name(scope)}={value}; HttpOnly; SameSite=Strict; Path=/"

    @staticmethod
    def cookie_name(scope: "Scope") -> str:
        """Return the name of the cookie; browsers share cookies between the ports of a host."""
        _, port = scope.get("server") or ("", None)
        return VISITOR_COOKIE if port is None else f"{VISITOR_COOKIE}-{port}"

    def is_proxy(self, scope: "Scope") -> bool:
        """Return whether a request comes from the reverse proxy."""
        return self.proxy != "" and (scope.get("client") or ("", 0))[0] == self.proxy

    def _address(self, scope: "Scope", headers: Mapping[str, str]) -> str:
        address: str = (scope.get("client") or ("", 0))[0]
        if self.is_proxy(scope):
            address = headers.get("x-forwarded-for", "").rpartition(",")[2].strip()  # the last one is the proxy's own
        return shorten_address(address)

    def _sign(self, visitor: str) -> str:
        return hmac.new(self._secret, visitor.encode(), hashlib.sha256).hexdigest()[:32]


def shorten_address(address: str) -> str:
    """Return the prefix under which an address is counted: one user often owns 2**64 IPv6 addresses.

    >>> shorten_address("192.0.2.7"), shorten_address("2001:db8::1:2:3:4"), shorten_address("::ffff:192.0.2.7")
    ('192.0.2.7', '2001:db8::', '192.0.2.7')
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False).network_address)


def read_cookie(header: str, name: str) -> str:
    """Return the value of a cookie, or an empty text."""
    try:
        cookie = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return cookie.value if cookie else ""
