"""A job as its caller holds it: status, result, progress, cancel."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .answers import answer_of

if TYPE_CHECKING:
    from uuid import UUID

    from .answers import Answer, Progress, Status
    from .follower import Follower

RESULT_TIMEOUT_S: Final = 30.0
CANCEL_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Handle:
    """One job. It holds no connection; keep it, pass it on, or make it again from the id."""

    id: "UUID"
    """The job's id in PostgreSQL, and the idempotency key of its effects."""
    redis_id: str
    """Its id in Redis, where arq's own clients find it."""
    created: bool | None = None
    """Whether this call created the job. False: it was already accepted, with the same payload.
    None: the handle was made from an id."""
    replaced: bool = False
    """Whether this call's payload and time took the place of older ones, in a job that waits: its
    kind declares `replace`."""
    recorded: bool = False
    """Whether the job was accepted in PostgreSQL, so that Redis may not have it yet."""
    _follower: "Follower" = field(repr=False, compare=False, kw_only=True)

    @property
    def duplicate(self) -> bool:
        """Whether the same key and payload had already been accepted, and nothing has changed."""
        return self.created is False and not self.replaced

    async def status(self) -> "Status":
        """Return where the job is now, by its row where the client has `sessions`.

        Raises:
            JobNotFoundError: no such job, in PostgreSQL or Redis, as far as the client has them.
        """
        return await self._follower.status(self.redis_id)

    async def result(self, timeout: float = RESULT_TIMEOUT_S) -> "Answer":  # noqa: ASYNC109 - arq's name for it
        """Wait until the job has ended, woken by Redis where that works, and return its answer.

        Args:
            timeout: seconds.

        Returns:
            The kind's Result (None if it has none), a `Rejected`, or a `Cancel`.

        Raises:
            ResultTimeoutError: it has not ended in time; the job goes on.
            JobDeadError: it failed for good.
            JobNotFoundError: no such job, in PostgreSQL or Redis, as far as the client has them.
        """
        end = await self._follower.end(self.redis_id, timeout, recorded=self.recorded)
        return answer_of(self.id, end)

    async def progress(self) -> "Progress | None":
        """Return what the job last said of its progress; None if it said nothing."""
        return await self._follower.progress(self.redis_id)

    async def cancel(
        self,
        reason: str = "cancelled by its caller",
        timeout: float = CANCEL_TIMEOUT_S,  # noqa: ASYNC109 - arq's name for it
    ) -> bool:
        """Cancel the job unless it has taken effect; return whether it will never take effect.

        With `sessions` PostgreSQL decides, at once, about a job that has its row. Otherwise it is
        arq's abort: a request that a worker answers once the job's row says what became of it. If
        none does within `timeout` seconds, this returns False; the request stands.

        Args:
            reason: for people; cut after 500 characters. An abort through Redis carries none.
            timeout: seconds to wait for a worker's answer.

        Raises:
            JobNotFoundError: no such job, in PostgreSQL or Redis, as far as the client has them.
        """
        return await self._follower.cancel(self.redis_id, reason, timeout, recorded=self.recorded)
