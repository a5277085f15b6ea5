"""What a handler gets beside its payload.

The one file of the machine that names types of the database and of services; it imports
neither, so a job stays light.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

from ._errors import TooManyFollowUpsError, UnknownKindError
from ._payload import Payload
from ._progress import ShowProgress, show_nobody
from ._request import CheckedRequest, Request, check

if TYPE_CHECKING:
    from db.store import Store

    from ._services import Services

FOLLOW_UPS_MAX: Final = 1_000
"""Jobs that one run may enqueue: they are written in one statement of its transaction."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A job that a handler has enqueued; it exists once the handler's own job has taken effect."""

    id: UUID
    request: CheckedRequest


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler may touch: its own transaction's store, and facts about this try."""

    job_id: UUID
    try_number: int
    """Counts deliveries from 1, whatever became of the earlier ones."""
    enqueued_at: datetime
    store: "Store"
    services: "Services"
    """What `_services.py` opened when the worker started."""
    progress: ShowProgress = show_nobody
    kinds: Collection[str] | None = None
    """The kinds that can be enqueued; None: they are not checked here."""
    follow_ups: list[FollowUp] = field(default_factory=list)
    """What the handler has enqueued so far."""

    async def enqueue(
        self,
        payload: Payload,
        *,
        key: str | None = None,
        delay: timedelta | None = None,
        run_at: datetime | None = None,
    ) -> UUID:
        """Enqueue another job, in this job's transaction: it exists if and only if this one does.

        It is written when the handler has answered with a result, and sent after the commit. A
        rejection, a failure or a lost try leaves nothing.

        Args:
            payload: of a kind that is registered.
            key: with it, the job is one of its kind; where the key is taken by the same payload,
                the job that has it stands.
            delay: from the commit until it runs, by the server's clock.
            run_at: when it runs, instead.

        Returns:
            Its id, unless the key is taken. The same in every try of this job.

        Raises:
            UnknownKindError, InvalidPayloadError, InvalidKeyError, InvalidTimeError,
            TooManyFollowUpsError: it cannot be enqueued.
        """
        return self._add(Request(payload, key, run_at, delay))

    async def enqueue_many(self, requests: Iterable[Payload | Request]) -> list[UUID]:
        """Enqueue other jobs like `enqueue`; one with a key or a time is a `Request`."""
        return [self._add(request) for request in requests]

    def _add(self, request: Payload | Request) -> UUID:
        checked = check(request)
        position = len(self.follow_ups)
        if self.kinds is not None and checked.kind not in self.kinds:
            raise UnknownKindError(f"no job of the kind {checked.kind[:100]!r} is registered")
        if position >= FOLLOW_UPS_MAX:
            raise TooManyFollowUpsError(
                f"a job enqueues at most {FOLLOW_UPS_MAX:,} others in one run: "
                "enqueue one that enqueues the rest"
            )
        job_id = uuid5(self.job_id, f"{checked.kind}:{position}")
        self.follow_ups.append(FollowUp(job_id, checked))
        return job_id
