"""Follows the pauses: this process claims nothing of a paused queue, and runs no paused kind.

Every process reads the table again and again; what it read last holds while PostgreSQL is away.
"""

import time
from typing import TYPE_CHECKING, Final

from db.pauses import Pauses
from worker.maintenance.relay import AHEAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from db.pauses import Pause
    from worker.execution.arq_adapter import TellerWorker
    from worker.monitoring.events import Events
    from worker.monitoring.state import WorkerState

READ_PAUSE_S: Final = 0.75
"""Between two looks; with what a look takes, a pause is known everywhere within a second."""
LET_GO_MAX: Final = 1_000
"""Jobs whose pause has ended that one round lets go."""
SET_APART_MAX: Final = 1_000
FORGET_INTERVAL_S: Final = 30.0


class PauseKeeper:
    """One process's view of the pauses, a background duty."""

    name = "pauses"
    step_timeout_s = 15.0

    def __init__(
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        worker: "TellerWorker | None",
        queues: "Mapping[str, str]",
        events: "Events",
        state: "WorkerState",
    ) -> None:
        """Follow the pauses.

        Args:
            sessions: on the table.
            worker: our loop's; None for arq's stock loop, which cannot leave a queue alone.
            queues: the names of those that this process serves, by their keys in Redis.
            events: where a pause's begin and end are told.
            state: where health finds what is paused.
        """
        self._sessions = sessions
        self._worker = worker
        self._queues = queues
        self._events = events
        self._state = state
        self._forget_at = 0.0
        self.kinds: frozenset[str] = frozenset()
        """The kinds that are paused."""

    def is_paused(self, kind: str) -> bool:
        """Return whether jobs of a kind must not begin."""
        return kind in self.kinds

    async def step(self) -> float:
        """Read the pauses and act on them; return the seconds until the next look."""
        async with self._sessions() as session:
            pauses = await Pauses(session).read()
        active = [pause for pause in pauses if pause.active]
        self._follow(active)
        if self.kinds:
            await self._set_apart()
        ended = [pause.name for pause in pauses if pause.what == "kind" and not pause.active]
        more = [await self._let_go(kind) for kind in ended]
        if len(active) < len(pauses) and time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + FORGET_INTERVAL_S
            async with self._sessions() as session, session.begin():
                await Pauses(session).forget()
        return 0.0 if any(more) else READ_PAUSE_S

    def _follow(self, active: "list[Pause]") -> None:
        before = {pause.target for pause in self._state.pauses}
        for pause in active:
            if pause.target not in before:
                self._events.emit(
                    "pause.began", target=pause.target, by=pause.by, reason=pause.reason
                )
        for target in before - {pause.target for pause in active}:
            self._events.emit("pause.ended", target=target)
        self._state.pauses = tuple(active)
        self.kinds = frozenset(pause.name for pause in active if pause.what == "kind")
        paused = {pause.name for pause in active if pause.what == "queue"}
        if self._worker is not None:
            for key, name in self._queues.items():
                self._worker.queues[key].pause(on=name in paused)

    async def _set_apart(self) -> None:
        async with self._sessions() as session, session.begin():
            await Pauses(session).set_apart(
                self.kinds, self._queues.values(), SET_APART_MAX, ahead=AHEAD
            )

    async def _let_go(self, kind: str) -> bool:
        """Let some jobs go; return whether there are likely more."""
        async with self._sessions() as session, session.begin():
            return await Pauses(session).let_go(kind, LET_GO_MAX) == LET_GO_MAX
