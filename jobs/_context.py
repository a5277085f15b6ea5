"""What a handler gets beside its payload.

The one file of the machine that names types of the database and of services; it imports
neither, so a job stays light.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

from ._batch import OnDead
from ._errors import TooManyFollowUpsError, UnknownKindError
from ._payload import Payload
from ._progress import ShowProgress, show_nobody
from ._request import CheckedRequest, Request, check, checked_key, require_no_notify

if TYPE_CHECKING:
    from db.store import Store

    from ._services import Services

MEMBERS_MAX: Final = 10_000
"""Jobs in one batch that a run opens: they are accepted by one statement of its transaction."""
BATCHES_MAX: Final = 10
FOLLOW_UPS_MAX: Final = 1_000
"""Jobs that one run may enqueue: they are written in one statement of its transaction."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A job that a handler has enqueued; it exists once the handler's own job has taken effect."""

    id: UUID
    request: CheckedRequest
    in_batch: bool = False
    """Whether it is in the same batch as the handler's own job."""


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch that a handler has opened; it exists once the handler's own job has taken effect."""

    id: UUID
    members: Sequence[CheckedRequest]
    then: CheckedRequest | None
    key: str | None
    on_dead: OnDead


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
    cursor: Any = None
    """Where this slice begins: what the last one gave to `Continue`; None at first."""
    slices: int = 0
    """How many slices of this job took effect before this one."""
    kinds: Collection[str] | None = None
    """The kinds that can be enqueued; None: they are not checked here."""
    follow_ups: list[FollowUp] = field(default_factory=list)
    """What the handler has enqueued so far."""
    batches: list[NewBatch] = field(default_factory=list)
    """What batches it has opened so far."""

    @property
    def idempotency_key(self) -> str:
        """A text for other services by which they know a repeated request.

        The same in every try, and another one in each slice.
        """
        return f"{self.job_id}:{self.slices}" if self.slices else str(self.job_id)

    async def enqueue(
        self,
        payload: Payload,
        *,
        key: str | None = None,
        delay: timedelta | None = None,
        run_at: datetime | None = None,
        in_batch: bool = False,
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
            in_batch: whether it joins the batch of this job, which then waits for it too; a job
                that is in none fails.

        Returns:
            Its id, unless the key is taken. The same in every try of this job.

        Raises:
            UnknownKindError, InvalidPayloadError, InvalidKeyError, InvalidTimeError,
            TooManyFollowUpsError: it cannot be enqueued.
        """
        return self._add(Request(payload, key, run_at, delay), in_batch=in_batch)

    async def enqueue_many(
        self, requests: Iterable[Payload | Request], *, in_batch: bool = False
    ) -> list[UUID]:
        """Enqueue other jobs like `enqueue`; one with a key or a time is a `Request`."""
        return [self._add(request, in_batch=in_batch) for request in requests]

    async def batch(
        self,
        requests: Iterable[Payload | Request],
        *,
        then: Payload | Request | None = None,
        key: str | None = None,
        on_dead: OnDead = "go_on",
    ) -> UUID:
        """Open a batch in this job's transaction: it exists if and only if this job takes effect.

        Args:
            requests: its members, `MEMBERS_MAX` at most. They may add others (`in_batch`).
            then: the job that follows when all of them are over, exactly once; of a `Request` its
                payload and `notify`.
            key: the same key with the same members is the same batch.
            on_dead: whether a dead member counts as over, or holds the batch.

        Returns:
            Its id, unless the key is taken. The same in every try of this job.

        Raises:
            UnknownKindError, InvalidPayloadError, InvalidKeyError, InvalidTimeError,
            TooManyFollowUpsError: it cannot be opened.
        """
        members = [require_no_notify(self._checked(request)) for request in requests]
        if len(members) > MEMBERS_MAX:
            raise TooManyFollowUpsError(
                f"a job opens a batch of {MEMBERS_MAX:,} jobs at most: let members add others"
            )
        if len(self.batches) >= BATCHES_MAX:
            raise TooManyFollowUpsError(f"a job opens at most {BATCHES_MAX} batches in one run")
        batch_id = uuid5(self.job_id, f"batch:{self.slices}:{len(self.batches)}")
        follows = None if then is None else self._checked(then)
        self.batches.append(NewBatch(batch_id, members, follows, checked_key(key), on_dead))
        return batch_id

    def _add(self, request: Payload | Request, *, in_batch: bool) -> UUID:
        checked = require_no_notify(self._checked(request))
        position = len(self.follow_ups)
        if position >= FOLLOW_UPS_MAX:
            raise TooManyFollowUpsError(
                f"a job enqueues at most {FOLLOW_UPS_MAX:,} others in one run: "
                "answer Continue, and enqueue the rest in the next slice"
            )
        job_id = uuid5(self.job_id, f"{checked.kind}:{self.slices}:{position}")
        self.follow_ups.append(FollowUp(job_id, checked, in_batch))
        return job_id

    def _checked(self, request: Payload | Request) -> CheckedRequest:
        checked = check(request)
        if self.kinds is not None and checked.kind not in self.kinds:
            raise UnknownKindError(f"no job of the kind {checked.kind[:100]!r} is registered")
        return checked
