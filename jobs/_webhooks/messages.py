"""What is posted: the endpoint's URL, the signed headers, and what a receiver's answer means."""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the scheme's prefix, not a secret
SECRET_BYTES: Final = 32
RETRY_AFTER_MAX: Final = timedelta(days=1)
URL_CHARACTERS_MAX: Final = 2_000


class WebhookURLError(ValueError):
    """No webhook can be delivered to this URL; the message says what would do."""


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
    status: int = 0
    """0 where there was no answer."""
    reason: str = ""
    """Why it failed, with nothing of the message in it."""
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
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Answer(Verdict.DELIVERED, status)
    if status == HTTPStatus.GONE:
        return Answer(Verdict.GONE, status)
    reason = f"the receiver answered {status}"
    return Answer(Verdict.FAILED, status, reason, _wait_of(retry_after, now))


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
