"""Webhooks: sign a message, post it to an address that may be reached, read what the answer means.

Messages and signatures follow the Standard Webhooks scheme (standardwebhooks.com), for which
receivers find a library in every language.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

import httpx

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the scheme's prefix, not a secret
SECRET_BYTES: Final = 32

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 15.0
"""For the whole exchange; a receiver should note the message, answer, and work on it then."""
CONNECTIONS_MAX: Final = 20
RETRY_AFTER_MAX: Final = timedelta(days=1)
URL_CHARACTERS_MAX: Final = 2_000


class WebhookURLError(ValueError):
    """No webhook can be delivered to this URL; the message says what would do."""


class AddressRefusedError(Exception):
    """A webhook's host is, or leads to, an address of a private network."""


class Verdict(Enum):
    """What a receiver's answer means."""

    DELIVERED = "delivered"
    GONE = "gone"
    """The receiver wants no more of them (410)."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one delivery."""

    verdict: Verdict
    status: int
    retry_after: timedelta | None = None
    """When the receiver asks for the next try, if it says so."""


def check_url(url: str) -> str:
    """Return the URL of an endpoint if a webhook can be posted there.

    Raises:
        WebhookURLError: it cannot.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or len(url) > URL_CHARACTERS_MAX:
        raise WebhookURLError(
            "a webhook's URL is https://HOST/PATH, or http:// for a host of yours"
        )
    if parts.username or parts.password or parts.fragment:
        raise WebhookURLError("a webhook's URL has no user, password or fragment: it is signed")
    return url


def new_secret() -> str:
    """Return a new secret to sign with, as the scheme writes it."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return one signature of a message, for the header `webhook-signature`.

    Raises:
        ValueError: the secret is not `whsec_` and base64.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("a webhook's secret is whsec_ and base64") from None
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def headers_of(
    message_id: str, sent_at: datetime, body: bytes, with_secrets: Sequence[str]
) -> dict[str, str]:
    """Return a message's headers: signed with every secret, so that one may be replaced."""
    timestamp = int(sent_at.timestamp())
    return {
        "content-type": "application/json",
        "user-agent": "teller-webhooks",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(
            sign(secret, message_id, timestamp, body) for secret in with_secrets
        ),
    }


def judge(status: int, retry_after: str | None, now: datetime) -> Answer:
    """Return what a receiver's answer means; a redirect is a failure, since none is followed."""
    if 200 <= status < 300:  # noqa: PLR2004 - success, by HTTP
        return Answer(Verdict.DELIVERED, status)
    if status == httpx.codes.GONE:
        return Answer(Verdict.GONE, status)
    return Answer(Verdict.FAILED, status, _wait_of(retry_after, now))


def _wait_of(retry_after: str | None, now: datetime) -> timedelta | None:
    """Read the header `Retry-After`: seconds, or a date; bounded by `RETRY_AFTER_MAX`."""
    if retry_after is None:
        return None
    try:
        wait = timedelta(seconds=int(retry_after))
    except (ValueError, OverflowError):
        try:
            at = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        wait = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    return min(max(wait, timedelta()), RETRY_AFTER_MAX)


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


class WebhookSender:
    """Posts signed messages; one for all deliveries of a process."""

    def __init__(self, *, private_allowed: bool) -> None:
        """Open no connection yet.

        Args:
            private_allowed: whether an endpoint may be in a private network.
        """
        transport: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX)
        )
        if not private_allowed:
            transport = PublicOnly(transport)
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self._client = httpx.AsyncClient(
            transport=transport, timeout=timeout, follow_redirects=False, trust_env=False
        )

    async def post(self, url: str, message_id: str, body: bytes, keys: Sequence[str]) -> Answer:
        """Post a message, and return what its receiver answered.

        Args:
            url: the endpoint's.
            message_id: the same for every try, so that a receiver knows a repetition.
            body: JSON.
            keys: the secrets to sign with.

        Raises:
            AddressRefusedError: see `PublicOnly`.
            httpx.HTTPError, TimeoutError: it did not arrive, or nobody knows.
        """
        headers = headers_of(message_id, datetime.now(UTC), body, keys)
        async with (
            asyncio.timeout(ANSWER_TIMEOUT_S),
            # The answer's body is of no interest, however long: it is not read.
            self._client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            retry_after = answer.headers.get("retry-after")
            return judge(answer.status_code, retry_after, datetime.now(UTC))

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()
