"""Suspects: jobs under which a process died. Each runs as the only job of its process."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from .claims import Claim, Claims

ALONE_WAIT_S: Final = 15.0
"""How long a suspect waits for the other jobs of its process to end; meanwhile none is claimed."""
SUSPECTS_REST_S: Final = 60.0
"""For how long a process claims no suspect after one has waited in vain."""


class Suspects:
    """The suspects of one process, whichever queue they came from."""

    def __init__(self, claims: "Claims") -> None:
        self._claims = claims
        self._held: dict[str, Claim] = {}
        self._rest_until = 0.0
        self._others_left = asyncio.Event()

    def __bool__(self) -> bool:
        """Return whether one waits or runs; then no job is claimed."""
        return bool(self._held)

    @property
    def wanted(self) -> bool:
        """Whether this process claims suspects at the moment."""
        return self._rest_until <= asyncio.get_running_loop().time()

    def add(self, claim: "Claim") -> None:
        """Note that a suspect is held."""
        self._held[claim.job_id] = claim

    def discard(self, claim: "Claim") -> None:
        """Note that a job is not held any more, which may have been a suspect."""
        self._held.pop(claim.job_id, None)
        self._others_left.set()

    def look_again(self) -> None:
        """Have those that wait look again whether they are alone, and whether they may start."""
        self._others_left.set()

    async def wait_alone(self, claim: "Claim", may_start: "Callable[[], bool]") -> bool:
        """Wait until a suspect is the only job in this process; False when it must not run here.

        It must not when the others go on for too long, or when the worker stops or drains.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(ALONE_WAIT_S):
                while may_start():
                    if self._is_alone(claim):
                        return True
                    self._others_left.clear()
                    await self._others_left.wait()
                return False
        self._rest_until = asyncio.get_running_loop().time() + SUSPECTS_REST_S
        return False

    def _is_alone(self, claim: "Claim") -> bool:
        first = next(iter(self._held.values()))
        if first is not claim:
            return False
        # While Redis is away the ends of others may wait for it, however long, and run no more.
        return all(
            other.recording and not claim.in_redis
            for job_id, other in self._claims.held.items()
            if job_id not in self._held
        )
