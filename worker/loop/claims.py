"""The claims that a worker holds, and the name under which Redis knows their holder."""

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from arq.constants import default_queue_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RENEWALS_PER_LEASE: Final = 4
"""Three renewals in a row may fail before a lease lapses."""
LEASES_MAX: Final = 16
"""The lease of a job under which processes seem to have died is as many times longer, at most."""
RENEWAL_MAX: Final = 1_000
"""Leases per call: a longer script would make other clients of Redis wait."""


@dataclass(slots=True, eq=False)
class Claim:
    """One job held by this worker."""

    job_id: str
    body: bytes | None
    """None when the body has expired, or when it is so large that the job itself fetches it."""
    tries: int
    """How often the job was claimed, this claim included.

    With the worker's id it proves to Redis that we still hold the job.
    """
    score: int
    """When the job was due, in Unix milliseconds."""
    aborted_at_ms: float | None = None
    queue_name: str = default_queue_name
    """The queue that the job came from."""
    crashes: int = 0
    """How many earlier claims of the job never ended: their processes died under it."""
    body_size: int = 0
    """The bytes of a body that is still to be fetched."""
    enqueue_ms: int = 0
    """When a client enqueued the job; known once the body is decoded."""
    in_redis: bool = True
    """False for a job from another source (`run_local`): nothing about it is written to Redis."""
    owned: bool = True
    """Whether there is a lease to renew. A job whose lease is lost runs on without one."""
    ended: bool = False
    """Whether the run is over; its completion may still be on the way to Redis."""
    recording: bool = False
    """Whether only the record of the completion is outstanding."""
    started: bool = False
    """Whether the job's task has taken its first step."""
    counted: bool = False
    """Whether the run is in the worker's counters."""
    in_slot: bool = True
    """Whether the job still occupies a slot; it may leave before Redis has its completion."""
    opened: bool = False
    """Whether the claim of a suspect was counted, because it runs."""
    parked: bool = False
    """Whether the job gave its slot away while it waits for something else than this process."""


@dataclass(slots=True, eq=False)
class Claims:
    """The jobs that one worker holds, of all its queues."""

    worker_id: str
    lease_s: float
    held: dict[str, Claim] = field(default_factory=dict)

    @property
    def lease_ms(self) -> int:
        """How long a lease lasts."""
        return int(self.lease_s * 1000)

    def lease_ms_of(self, claim: Claim) -> int:
        """Return how long the lease of a job lasts that runs, longer for each one that lapsed.

        A job that holds the interpreter's lock keeps even the watchdog's thread from renewing, and
        looks as if its process had died.
        """
        return self.lease_ms * min(1 + claim.crashes, LEASES_MAX)

    @property
    def renewal_interval_s(self) -> float:
        """How often leases are renewed."""
        return self.lease_s / RENEWALS_PER_LEASE

    def owned(self) -> "Iterator[list[Claim]]":
        """Return the claims whose leases are to be renewed, in batches of one call each."""
        # A snapshot, made in one step: jobs start and end meanwhile, and the watchdog's thread
        # reads the claims too.
        owned = iter([claim for claim in list(self.held.values()) if claim.owned])
        while batch := list(islice(owned, RENEWAL_MAX)):
            yield batch

    def renewal(
        self, claims: "Iterable[Claim]", *, take_lapsed: bool
    ) -> tuple[list[str], list[Any]]:
        """Return the keys and the arguments of `renew.lua`."""
        numbers: dict[str, int] = {}
        args: list[Any] = [self.worker_id, int(take_lapsed)]
        for claim in claims:
            number = numbers.setdefault(claim.queue_name, len(numbers) + 1)
            lease_ms = self.lease_ms_of(claim) if claim.opened else self.lease_ms
            args += (number, claim.job_id, claim.tries, lease_ms)
        return list(numbers), args
