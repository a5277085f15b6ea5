"""Several worker processes as one: restarted when they crash, drained by one signal.

A child ends when its supervisor is gone, however it went: it watches a pipe that only the
supervisor holds.
"""

import asyncio
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

from worker.monitoring.http.child import SLOT

if TYPE_CHECKING:
    from worker.monitoring.events import Events

RESTART_WAIT_BASE_S: Final = 0.5
RESTART_WAIT_MAX_S: Final = 30.0
# A child that lived this long has started well; its next crash is waited for anew.
STEADY_AFTER_S: Final = 60.0
PROCESSES_MAX: Final = 64
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Supervisor:
    """Keeps `count` children of one command running until it is told to stop."""

    def __init__(self, command: list[str], count: int, events: "Events", *, restart: bool) -> None:
        self._command = command
        self._count = count
        self._events = events
        self._restart = restart
        self._stopping = asyncio.Event()
        self._children: set[asyncio.subprocess.Process] = set()

    async def run(self) -> int:
        """Run until every child has ended for good; return 0 when all ended well."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._pass_on, number)
        codes = await asyncio.gather(*(self._keep(slot) for slot in range(self._count)))
        return 0 if all(code == 0 for code in codes) else 1

    async def _keep(self, slot: int) -> int:
        """Run one child, and another after it, until stopped; return the last one's exit code."""
        crashes = 0
        while True:
            started_at = asyncio.get_running_loop().time()
            code = await self._run_child(slot)
            if self._stopping.is_set() or not self._restart:
                return code
            steady = asyncio.get_running_loop().time() - started_at > STEADY_AFTER_S
            crashes = 0 if steady else crashes + 1
            wait_s = min(RESTART_WAIT_MAX_S, RESTART_WAIT_BASE_S * 2.0 ** min(crashes, 16))
            self._events.emit("worker.crashed", slot=slot, exit_code=code, restart_in_s=wait_s)
            if await self._stopped_within(wait_s):
                return code

    async def _run_child(self, slot: int) -> int:
        child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            env={**os.environ, SLOT: str(slot)},
            start_new_session=True,  # a terminal's Ctrl-C reaches us alone, and we pass it on once
        )
        self._children.add(child)
        try:
            return await child.wait()
        finally:
            self._children.discard(child)

    async def _stopped_within(self, wait_s: float) -> bool:
        try:
            async with asyncio.timeout(wait_s):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    def _pass_on(self, number: signal.Signals) -> None:
        """Give the signal to every child: the first drains, a second hurries."""
        self._stopping.set()
        for child in self._children:
            child.send_signal(number)


def stop_with_supervisor() -> None:
    """In a supervised child, turn the supervisor's end into a SIGTERM of our own."""
    if SLOT not in os.environ:
        return

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
