"""Sends one POST to an address that must not be internal: connects to the resolved address after checking it.

In: an address, a body, headers. Out: nothing, or `CallbackFailed`. The name is resolved once, and the connection goes
to an address that was checked, so a name that resolves differently a moment later has no effect. Redirects are not
followed, proxies of the environment are not used, and the receiver's answer is never kept or repeated.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from s3t_ray.errors import ClusterError

POST_SECONDS = 10.0


class CallbackFailed(ClusterError):
    """A receiver did not accept a message; it will be sent again."""


class _Pinned(HTTPConnection):
    """Connects to `address`, whatever the host name resolves to by then."""

    address = ""

    def connect(self) -> None:
        self.sock = socket.create_connection((self.address, self.port), self.timeout)


class _PinnedTls(HTTPSConnection):
    """The same with TLS; the certificate must be for the host name."""

    address = ""
    trusted: ssl.SSLContext

    def connect(self) -> None:
        plain = socket.create_connection((self.address, self.port), self.timeout)
        self.sock = self.trusted.wrap_socket(plain, server_hostname=self.host)


def post(url: str, body: bytes, headers: Mapping[str, str], private: bool, trusted: ssl.SSLContext) -> None:
    """Send it. `private`: allow a private address. CallbackFailed: the answer is not 200 to 299."""
    parts = urlsplit(url)
    host, tls = str(parts.hostname), parts.scheme == "https"
    if not tls and not private:
        raise CallbackFailed("only https is allowed outside the private network", "give the receiver an https address")
    port = parts.port or (443 if tls else 80)
    connection = _connection(host, port, tls, trusted)
    connection.address = _checked_address(host, port, private)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, {**headers, "connection": "close"})
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        raise CallbackFailed(f"the receiver cannot be reached: {type(error).__name__}", "see its log") from error
    finally:
        connection.close()
    if not 200 <= status < 300:
        told = "a redirect, which is not followed" if 300 <= status < 400 else "not a success"
        raise CallbackFailed(f"the receiver answered {status}: {told}", "see its log, and its address in the file")


def _connection(host: str, port: int, tls: bool, trusted: ssl.SSLContext) -> _Pinned | _PinnedTls:
    if not tls:
        return _Pinned(host, port, timeout=POST_SECONDS)
    made = _PinnedTls(host, port, timeout=POST_SECONDS)
    made.trusted = trusted
    return made


def _checked_address(host: str, port: int, private: bool) -> str:
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise CallbackFailed("the receiver's host name cannot be resolved", "check its address in the file") from error
    inside = [address for address in found if not is_outside(address)]
    if inside and not private:
        raise CallbackFailed(
            "the receiver's host name resolves to a private address", "set private: true if the receiver is internal"
        )
    return min(found, key=lambda address: (":" in address, address))  # IPv4 first


def is_outside(address: str) -> bool:
    """Whether an IP address is a unicast address on the public internet. Addresses that embed an IPv4 address (mapped,
    6to4, NAT64, Teredo) are classified by it, or refused."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return is_outside(str(found.ipv4_mapped))
        if found.sixtofour is not None or found.teredo is not None or found in _NAT64:
            return False
    return found.is_global and not found.is_multicast


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
