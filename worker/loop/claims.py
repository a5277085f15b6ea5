"""What a worker holds: the claims it has not yet let go of, and the name it holds them under."""

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RENEWALS_PER_LEASE: Final = 4
"""Three renewals in a row may fail before a lease lapses."""
RENEWAL_MAX: Final = 1_000
"""Leases per call: a longer script would make other clients of Redis wait."""


@dataclass(slots=True, eq=False)
class Claim:
    """One job held by this worker."""

    job_id: str
    body: bytes | None
    """None when the body has expired."""
    tries: int
    """How often the job was claimed, this time included: with the worker's id, our proof of it."""
    score: int
    aborted_at_ms: int | None = None
    enqueue_ms: int = 0
    """When a client enqueued the job; known once the body is read."""
    in_redis: bool = True
    """False for a job that another source handed over: Redis is told nothing of it."""
    owned: bool = True
    """Whether there is a lease to renew. A job whose lease is lost goes on without."""
    ended: bool = False
    """Whether the run is over; its end may still be on the way to Redis."""
    recording: bool = False
    """Whether nothing but the record of its end is outstanding."""
    counted: bool = False
    """Whether the run is in the worker's counters."""
    in_slot: bool = True
    """Whether the job still occupies a slot; its end may be unrecorded when it no longer does."""


@dataclass(slots=True, eq=False)
class Holdings:
    """The jobs that one worker holds of one queue."""

    worker_id: str
    queue_name: str
    lease_s: float
    claims: dict[str, Claim] = field(default_factory=dict)

    @property
    def lease_ms(self) -> int:
        """How long a lease lasts."""
        return int(self.lease_s * 1000)

    @property
    def renewal_interval_s(self) -> float:
        """How often leases are renewed."""
        return self.lease_s / RENEWALS_PER_LEASE

    def owned(self) -> "Iterator[list[Claim]]":
        """Return the claims whose leases are to be renewed, as many together as one call takes."""
        # A snapshot, made in one step: jobs start and end meanwhile, and a thread may ask.
        owned = iter([claim for claim in list(self.claims.values()) if claim.owned])
        while batch := list(islice(owned, RENEWAL_MAX)):
            yield batch

    def renewal(self, claims: "Iterable[Claim]", *, take_lapsed: bool) -> list[Any]:
        """Return the arguments of `renew.lua`."""
        args: list[Any] = [self.worker_id, self.lease_ms, int(take_lapsed)]
        for claim in claims:
            args += (claim.job_id, claim.tries)
        return args
