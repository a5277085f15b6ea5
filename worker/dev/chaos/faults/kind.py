"""What a kind of fault is, what one fault is, and what faults are done to."""

import asyncio
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from worker.dev.chaos.fleet import Fleet
    from worker.dev.chaos.proxy import CommitProxy, Proxy
    from worker.dev.servers import PostgresServer, ValkeyServer
    from worker.dev.workload import Connections

GROUP_END: Final = ":"
"""What stands between a group's name and the rest of a kind's: `poison:segfault`."""


class Recovery(Enum):
    """Until when a fault is felt."""

    OF_JOBS = "every job that was accepted before its end is final"
    OF_POISON = "the poison itself is final"
    OF_GARBAGE = "the garbage is out of Redis"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: an entry in a table."""

    name: str
    """As on the command line; kinds of a group begin with its name and a colon."""
    does: str
    inject: "Callable[[Targets, Fault], Awaitable[None]]"
    weight: float = 1.0
    """How often it comes, against the others."""
    hold_s: tuple[float, float] = (0.0, 0.0)
    """How long one lasts: the shortest and the longest."""
    long_hold_s: tuple[float, float] | None = None
    """How long the first one of a long run lasts."""
    is_outage: bool = False
    """Whether no job can be asked to end while it lasts."""
    needs_our_servers: bool = False
    """Whether it takes a server's process or its superuser: a URL is not enough."""
    forgets_queue: bool = False
    """Whether what Redis alone has can be lost by it."""
    is_slow: bool = False
    """Whether it takes half a minute until it is over: then it comes in the first half of a run."""
    recovery: Recovery = Recovery.OF_JOBS

    @property
    def group(self) -> str:
        """The name that asks for this kind together with its like."""
        return self.name.partition(GROUP_END)[0]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: a value that follows from a seed."""

    kind: Kind
    number: int
    """Its place in the plan."""
    at: float
    """It strikes when this part of the load, from 0 to 1, has been worked off."""
    hold_s: float
    victim: float
    """Which of those that can be hurt, as a number in [0, 1)."""
    force: float
    """How hard, as a number in [0, 1)."""
    gentle: bool
    """A clean stop instead of `kill -9`; a Redis that remembers instead of one that forgets."""


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that was done, and when: Unix seconds."""

    kind: Kind
    began_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class Poisoned:
    """A job that was sent to do a deed."""

    deed: str
    sent_at: float


@dataclass
class Targets:
    """What can be hurt, and what was done so far."""

    fleet: "Fleet"
    postgres_proxy: "CommitProxy"
    redis_proxy: "Proxy"
    connections: "Connections"
    """Our own, past the proxies; no fault is aimed at them."""
    prefix: str
    """What the keys of the experiment's jobs begin with."""
    postgres: "PostgresServer | None" = None
    valkey: "ValkeyServer | None" = None
    strikes: list[Strike] = field(default_factory=list)
    poisoned: "dict[UUID, Poisoned]" = field(default_factory=dict)
    garbage: "list[UUID]" = field(default_factory=list)
    """The ids that garbage must have in the record."""
    postgres_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    redis_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    network_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    pause_turn: asyncio.Lock = field(default_factory=asyncio.Lock)


async def inject(targets: Targets, fault: Fault) -> None:
    """Do one fault, to its end."""
    began_at = time.time()
    await fault.kind.inject(targets, fault)
    targets.strikes.append(Strike(fault.kind, began_at, time.time()))
