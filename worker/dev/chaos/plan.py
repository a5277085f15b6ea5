"""Which faults strike, when and how hard: values that follow from a seed alone."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class FaultKind(StrEnum):
    """A kind of fault; its value is its name on the command line."""

    KILL_WORKER = "kill-worker"
    FLUSH_REDIS = "flush-redis"
    STOP_REDIS = "stop-redis"
    FREEZE_REDIS = "freeze-redis"
    KILL_BACKENDS = "kill-backends"
    RESTART_POSTGRES = "restart-postgres"
    FREEZE_WORKER = "freeze-worker"
    LOST_COMMIT = "lost-commit"


NEED_OUR_SERVERS: Final = frozenset(
    {FaultKind.STOP_REDIS, FaultKind.FREEZE_REDIS, FaultKind.RESTART_POSTGRES}
)
"""Faults of a server's process: impossible on servers that are only known by their URLs."""

# How often each kind comes, the cheap ones more often than those that stop everything.
WEIGHTS: Final = {
    FaultKind.KILL_WORKER: 4,
    FaultKind.FLUSH_REDIS: 4,
    FaultKind.STOP_REDIS: 2,
    FaultKind.FREEZE_REDIS: 1,
    FaultKind.KILL_BACKENDS: 6,
    FaultKind.RESTART_POSTGRES: 2,
    FaultKind.FREEZE_WORKER: 2,
    FaultKind.LOST_COMMIT: 8,
}

# A frozen worker must wake up after its lease of 8 s has lapsed, else nothing was proved.
HOLD_S: Final = {
    FaultKind.STOP_REDIS: (0.5, 3.0),
    FaultKind.FREEZE_REDIS: (1.0, 5.0),
    FaultKind.RESTART_POSTGRES: (0.0, 1.0),
    FaultKind.FREEZE_WORKER: (8.5, 11.0),
}
REPLIES_LOST_MAX: Final = 5
BEGIN: Final = 0.02
"""The first part of the load runs undisturbed, and the last: there must be something to break."""
END: Final = 0.95


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault."""

    kind: FaultKind
    at: float
    """It strikes when this part of the load, from 0 to 1, has been worked off."""
    hold_s: float
    """How long the server is away, or the worker frozen."""
    victim: float
    """Which of the workers, as a number in [0, 1)."""
    gentle: bool
    """A clean stop instead of `kill -9`; a Redis that remembers instead of one that forgets."""
    replies: int
    """How many replies to COMMIT are lost."""


def schedule(seed: int, kinds: Iterable[FaultKind], count: int) -> tuple[Fault, ...]:
    """Return `count` faults in the order of their time, every kind at least once if they fit."""
    chance = random.Random(seed)  # noqa: S311 - a plan that can be repeated, not a secret
    wanted = sorted(set(kinds))
    if not wanted:
        return ()
    chosen = wanted[:count]
    weights = [WEIGHTS[kind] for kind in wanted]
    chosen += chance.choices(wanted, weights, k=count - len(chosen))
    chance.shuffle(chosen)
    step = (END - BEGIN) / max(count, 1)
    return tuple(
        _fault(kind, BEGIN + step * (position + chance.random()), chance)
        for position, kind in enumerate(chosen)
    )


def _fault(kind: FaultKind, at: float, chance: random.Random) -> Fault:
    shortest, longest = HOLD_S.get(kind, (0.0, 0.0))
    return Fault(
        kind=kind,
        at=round(at, 4),
        hold_s=round(chance.uniform(shortest, longest), 2),
        victim=chance.random(),
        gentle=chance.random() < 0.5,  # noqa: PLR2004 - as often as not
        replies=chance.randint(1, REPLIES_LOST_MAX),
    )
