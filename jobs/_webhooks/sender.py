"""Messages over HTTP."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import httpx

from .addresses import PublicOnly
from .messages import Answer, Verdict, headers_of, judge

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 15.0
"""For the whole exchange; a receiver should note the message, answer, and work on it then."""
CONNECTIONS_MAX: Final = 20


class Sender:
    """Posts signed messages; one for all deliveries of a process."""

    def __init__(self, *, private_allowed: bool) -> None:
        """Open no connection yet.

        Args:
            private_allowed: whether a receiver may be in a private network.
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

    async def post(self, url: str, message_id: str, body: bytes, secrets: Sequence[str]) -> Answer:
        """Post a message, and return what became of it.

        Args:
            url: the receiver's.
            message_id: the same for every try, so that a receiver knows a repetition.
            body: JSON.
            secrets: what it is signed with.

        Raises:
            AddressRefusedError: see `PublicOnly`.
        """
        headers = headers_of(message_id, datetime.now(UTC), body, secrets)
        try:
            async with (
                asyncio.timeout(ANSWER_TIMEOUT_S),
                # The answer's body is of no interest, however long: it is not read.
                self._client.stream("POST", url, content=body, headers=headers) as answer,
            ):
                retry_after = answer.headers.get("retry-after")
                return judge(answer.status_code, retry_after, datetime.now(UTC))
        except (httpx.HTTPError, TimeoutError) as error:
            return Answer(Verdict.FAILED, reason=f"no answer ({type(error).__name__})")

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()
