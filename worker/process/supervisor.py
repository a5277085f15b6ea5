"""Several worker processes as one: restarted when they crash, drained by one signal.

A child ends when its supervisor ends, even by SIGKILL: the child reads from a pipe that only the
supervisor holds open.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from worker.monitoring.http.child import SLOT
from worker.process.signals import STOP_SIGNALS, is_ignored, is_stop_pending, release_signals

if TYPE_CHECKING:
    from worker.monitoring.events import Events

RESTART_WAIT_BASE_S: Final = 0.5
RESTART_WAIT_MAX_S: Final = 30.0
DOUBLINGS_MAX: Final = 16
STEADY_AFTER_S: Final = 60.0
"""A child that ran this long had started well: the wait after its next crash is the first again."""
PROCESSES_MAX: Final = 64

Wait = Callable[[asyncio.Event, float], Awaitable[bool]]
"""Waits for an event, so many seconds at most, and returns whether it was set."""


async def wait_for(stopping: asyncio.Event, wait_s: float) -> bool:
    """Wait until the event is set, `wait_s` seconds at most; return whether it is set."""
    try:
        async with asyncio.timeout(wait_s):
            return await stopping.wait()
    except TimeoutError:
        return False


class Supervisor:
    """Keeps several children of one command running until a signal stops it."""

    def __init__(  # noqa: PLR0913 - two of them are for tests
        self,
        command: list[str],
        count: int,
        events: "Events",
        *,
        restart: bool,
        wait: Wait = wait_for,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; no child runs before `run`.

        Args:
            command: what each child executes.
            count: of children.
            events: where a crash is reported.
            restart: whether a child that ended is followed by another.
            wait: between a crash and the restart.
            clock: measures how long a child ran, in seconds.
        """
        self._command = command
        self._count = count
        self._events = events
        self._restart = restart
        self._wait = wait
        self._clock = clock
        self._stopping = asyncio.Event()
        self._children: set[asyncio.subprocess.Process] = set()

    async def run(self) -> int:
        """Run until every child has ended for good; return 0 when all ended well, else 1."""
        if is_stop_pending():
            return 0
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            if not is_ignored(number):
                loop.add_signal_handler(number, self._pass_on)
        release_signals()
        codes = await asyncio.gather(*(self._keep(slot) for slot in range(self._count)))
        return 0 if all(code == 0 for code in codes) else 1

    async def _keep(self, slot: int) -> int:
        """Run one child, and another after it, until stopped; return the last one's exit code."""
        crashes = 0
        while True:
            started_at = self._clock()
            code = await self._run_child(slot)
            if self._stopping.is_set() and code == -signal.SIGTERM:
                return 0  # it had not begun: later, a child drains and ends by itself
            if self._stopping.is_set() or not self._restart:
                return code
            steady = self._clock() - started_at > STEADY_AFTER_S
            crashes = 0 if steady else crashes + 1
            wait_s = restart_wait_s(crashes)
            self._events.emit("worker.crashed", slot=slot, exit_code=code, restart_in_s=wait_s)
            if await self._wait(self._stopping, wait_s):
                return code

    async def _run_child(self, slot: int) -> int:
        child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            env={**os.environ, SLOT: str(slot)},
            start_new_session=True,  # a terminal's Ctrl-C reaches us alone, and we pass it on once
        )
        self._children.add(child)
        if self._stopping.is_set():
            child.terminate()  # the signal came while the child started, and missed it
        try:
            return await child.wait()
        finally:
            self._children.discard(child)

    def _pass_on(self) -> None:
        """Send SIGTERM to every child: the first one drains it, a second one hurries it."""
        self._stopping.set()
        for child in self._children:
            with suppress(ProcessLookupError):  # it has just ended by itself
                child.terminate()


def restart_wait_s(crashes: int) -> float:
    """Return the seconds before a restart: twice as long after each crash in a row.

    Args:
        crashes: in a row, soon after the start; 0 for a child that had run well for a while.
    """
    return min(RESTART_WAIT_MAX_S, RESTART_WAIT_BASE_S * 2.0 ** min(crashes, DOUBLINGS_MAX))


def stop_with_supervisor() -> None:
    """In a supervised child, turn the supervisor's end into a SIGTERM of our own."""
    if SLOT not in os.environ:
        return

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
