"""Webhooks: other services hear that a job has ended.

Messages and signatures follow the Standard Webhooks scheme (standardwebhooks.com), for which
receivers find a library in every language.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from .messages import Answer
    from .sender import Sender


class Destination(Protocol):
    """Where a message goes."""

    @property
    def url(self) -> str:
        """The endpoint's."""

    @property
    def secrets(self) -> Sequence[str]:
        """What the message is signed with."""

    @property
    def disabled_because(self) -> str | None:
        """Why nothing is delivered there any more."""

    @property
    def key(self) -> str | None:
        """The key of the job that has ended."""

    @property
    def result(self) -> object:
        """The result of the job that has ended."""


class Endpoints(Protocol):
    """Knows the endpoints, and notes how their deliveries go; `db.webhooks.Deliveries` is one."""

    async def find(self, name: str, job_id: UUID, state: str) -> Destination | None:
        """Return where the end of a job is to be told; None when there is no such endpoint."""

    async def note_success(self, name: str) -> None:
        """Note that a delivery has arrived."""

    async def note_failure(self, name: str, limit: timedelta) -> None:
        """Note that one failed; an endpoint that fails for longer than the limit is disabled."""

    async def disable(self, name: str, reason: str) -> None:
        """Deliver there no more."""


class Webhooks:
    """What a delivery needs; one for all deliveries of a process."""

    def __init__(self, endpoints: Endpoints, *, private_allowed: bool) -> None:
        """Open nothing, and load no HTTP library, before the first message.

        Args:
            endpoints: where they are known.
            private_allowed: whether an endpoint may be in a private network.
        """
        self._private_allowed = private_allowed
        self._sender: Sender | None = None
        self.find = endpoints.find
        self.note_success = endpoints.note_success
        self.note_failure = endpoints.note_failure
        self.disable = endpoints.disable

    async def post(self, to: Destination, message_id: str, body: bytes) -> "Answer":
        """Post a message; see `Sender.post`."""
        from .sender import Sender

        if self._sender is None:
            self._sender = Sender(private_allowed=self._private_allowed)
        return await self._sender.post(to.url, message_id, body, to.secrets)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._sender is not None:
            await self._sender.aclose()


class _NoEndpoints:
    """Knows no endpoint, so that nothing is posted: for a dry run."""

    async def find(self, _name: str, _job_id: UUID, _state: str) -> None:
        return None

    async def note_success(self, _name: str) -> None: ...

    async def note_failure(self, _name: str, _limit: timedelta) -> None: ...

    async def disable(self, _name: str, _reason: str) -> None: ...


NO_ENDPOINTS: Final[Endpoints] = _NoEndpoints()
