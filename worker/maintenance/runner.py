"""Runs background duties: each has a `step()` that does one round and returns how long to rest.

The loop here owns sleeping, stopping and reporting. A duty that fails rests and is tried again, so
no failure of PostgreSQL or Redis ends a worker.
"""

import asyncio
import random
from typing import TYPE_CHECKING, Final, Protocol

from db.errors import diagnose
from worker.execution.retry import full_jitter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.monitoring.events import Events

FAILURE_PAUSE_MIN_S: Final = 0.2
FAILURE_PAUSE_MAX_S: Final = 5.0
STOP_WAIT_MAX_S: Final = 5.0


class Duty(Protocol):
    """Work that a worker repeats beside its jobs."""

    name: str
    """Identifies it in events and metrics."""
    step_timeout_s: float
    """A round that takes longer is cancelled, and counts as a failure."""

    async def step(self) -> float:
        """Do one round; return the seconds until the next. It may be cancelled at any point."""


class DutyRunner:
    """Runs duties side by side until stopped."""

    def __init__(self, duties: "Sequence[Duty]", events: "Events") -> None:
        self._duties = duties
        self._events = events
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start one task per duty in the running event loop."""
        self._tasks = [
            asyncio.create_task(self._repeat(duty), name=f"duty {duty.name}")
            for duty in self._duties
        ]

    async def stop(self) -> None:
        """Cancel every task, between rounds or within one, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_WAIT_MAX_S)

    async def _repeat(self, duty: Duty) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(duty.step_timeout_s):
                    pause_s = await duty.step()
                failures = 0
            except Exception as error:  # noqa: BLE001 - a duty outlives every failure of a round
                failures += 1
                diagnosis = diagnose(error)
                self._events.emit(
                    "duty.failed",
                    duty=duty.name,
                    error=type(error).__name__,
                    sqlstate=diagnosis.sqlstate,
                    failures=failures,
                )
                pause_s = FAILURE_PAUSE_MIN_S + full_jitter(
                    FAILURE_PAUSE_MIN_S,
                    FAILURE_PAUSE_MAX_S,
                    failures,
                    random.random(),  # noqa: S311 - jitter
                )
            await asyncio.sleep(pause_s)
