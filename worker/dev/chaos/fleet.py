"""Workers in processes of their own, to be killed and frozen; a dead one is replaced.

Each has the reaper of the embedded servers as its parent, so that none outlives us: not even one
that is frozen when we are killed, and could not act on the end of a pipe.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from worker.dev.servers import processes
from worker.dev.servers.directory import ServerLog
from worker.dev.servers.processes import Guarded

LOOK_EVERY_S: Final = 0.2
AWAKE_MIN: Final = 2
"""Before one is frozen: that one, and another."""
START_MAX_S: Final = 60.0
RESTART_WAIT_S: Final = 0.5
"""As an orchestrator would, and so that a worker that cannot start does not start all the time."""
SOURCE: Final = Path(__file__).parents[3]


@dataclass(eq=False)
class Member:
    """One worker process."""

    process: Guarded
    log: Path
    frozen: bool = False
    killed: bool = False
    """Whether its end was ours."""

    @property
    def has_started(self) -> bool:
        """Whether it has said so; before that a SIGTERM simply ends it, as it ends any program."""
        return b"worker.started" in self.log.read_bytes()


@dataclass
class Fleet:
    """As many workers as wanted, whatever happens to them."""

    directory: Path
    size: int
    members: list[Member] = field(default_factory=list)
    started: int = 0
    deaths: Counter[int] = field(default_factory=Counter)
    """The exit codes of those that ended, and not by our doing."""
    exit_codes: list[int] = field(default_factory=list)
    """Of those that were told to stop at the end."""
    _stopping: bool = False
    _keeper: "asyncio.Task[None] | None" = None

    async def start(self) -> None:
        """Start the workers, and from here on replace those that end."""
        for _ in range(self.size):
            await self._add()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def kill(self, victim: float) -> None:
        """`kill -9` a worker, frozen or not."""
        member = _pick([one for one in self.members if one.process.running], victim)
        if member is not None:
            member.killed = True
            os.kill(member.process.pid, signal.SIGKILL)

    async def freeze(self, victim: float, hold_s: float) -> None:
        """Stop a worker in its tracks for a while; one at least stays awake."""
        while len(awake := self._awake()) < AWAKE_MIN:  # noqa: ASYNC110 - processes send no event
            await asyncio.sleep(LOOK_EVERY_S)
        member = _pick(awake, victim)
        if member is None:
            return
        member.frozen = True
        processes.freeze(member.process.pid)
        try:
            await asyncio.sleep(hold_s)
        finally:
            if member.process.running:
                processes.thaw(member.process.pid)
            member.frozen = False

    async def ready(self) -> None:
        """Wait until every worker has started.

        Raises:
            TimeoutError: one does not.
        """
        async with asyncio.timeout(START_MAX_S):
            while sum(one.has_started for one in self.members) < self.size:  # noqa: ASYNC110 - as above
                await asyncio.sleep(LOOK_EVERY_S)

    async def stop(self) -> None:
        """Drain every worker, as a deploy does, and note how it ended."""
        self._stopping = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        await asyncio.gather(*(asyncio.to_thread(one.process.close) for one in self.members))
        self.exit_codes = [one.process.wait(0) for one in self.members]

    def logs(self) -> list[Path]:
        """Return what the workers wrote, a file for each."""
        return sorted(self.directory.glob("worker-*.log"))

    def _awake(self) -> list[Member]:
        return [one for one in self.members if one.process.running and not one.frozen]

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            dead = [one for one in self.members if not one.process.running]
            for one in dead:
                self.members.remove(one)
                one.process.close()
                if not one.killed:
                    self.deaths[one.process.wait(0)] += 1
            if dead:
                await asyncio.sleep(RESTART_WAIT_S)
            for _ in dead:
                await self._add()

    async def _add(self) -> None:
        self.started += 1
        log = ServerLog(self.directory / f"worker-{self.started}.log")
        command = [sys.executable, "-m", "worker.dev.chaos.member"]
        process = await asyncio.to_thread(Guarded, command, signal.SIGTERM, log)
        self.members.append(Member(process, log.path))


def _pick(members: list[Member], victim: float) -> Member | None:
    return members[int(victim * len(members))] if members else None


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set what worker processes are to find, and this package beside it."""
    added = {**variables, "PYTHONPATH": str(SOURCE)}
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
