"""Where a message may go: to public addresses alone, unless private ones are allowed."""

import asyncio
import ipaddress
import socket
from typing import Final

import httpx


class AddressRefusedError(Exception):
    """A webhook's host is, or leads to, an address of a private network."""


class PublicOnly(httpx.AsyncBaseTransport):
    """Connects to public addresses alone, and to just the address that was checked.

    A name is looked up here and the connection goes to the address found, so that a second
    look-up cannot lead elsewhere. TLS still checks the certificate against the name.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to a checked address of its host.

        Raises:
            AddressRefusedError: one of the host's addresses is not public.
            httpx.ConnectError: the host has no address.
        """
        host = request.url.host
        address = await _public_address(host, request.url.port or 443)
        request.url = request.url.copy_with(host=address)
        request.extensions = {**request.extensions, "sni_hostname": host}
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._inner.aclose()


async def _public_address(host: str, port: int) -> str:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpx.ConnectError(f"the host has no address ({type(error).__name__})") from error
    addresses = [str(info[4][0]) for info in found]
    if not all(map(is_public, addresses)):
        raise AddressRefusedError(
            "the endpoint's host leads to a private address: "
            "set TELLER_WEBHOOK_PRIVATE=allowed if it is a service of yours"
        )
    return addresses[0]


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet; also behind IPv6's disguises."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None and not is_public(str(inner)):
            return False
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip.is_global and not ip.is_multicast


_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
