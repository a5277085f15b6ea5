"""Leases: one timer renews everything this worker holds."""

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from .connection import LOSS_ERRORS
from .scripts import RENEW

if TYPE_CHECKING:
    from .claims import Claim, Holdings
    from .lease_watchdog import StandIn
    from .scripts import RunScript

logger = logging.getLogger("arq.worker")


class LeaseKeeper:
    """Renews the leases of the held jobs for as long as there are any."""

    def __init__(self, holdings: "Holdings", run: "RunScript", stand_in: "StandIn") -> None:
        self._holdings = holdings
        self._run = run
        self._stand_in = stand_in
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None

    def start(self) -> None:
        """See to it that the timer runs; cheap, and called for every claim."""
        if self._timer is None:
            self._wind()

    def renew_soon(self) -> None:
        """Renew now, and again after the interval for as long as anything is held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._holdings.claims:
            self._stand_in.rest()
            return
        self._wind()
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.get_running_loop().create_task(self._renew())

    def _wind(self) -> None:
        self._stand_in.loop_is_alive()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._holdings.renewal_interval_s, self.renew_soon)

    async def stop(self) -> None:
        """Stop renewing; what is still held will lapse."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait({self._renewal})
            self._renewal = None
        self._stand_in.stop()

    async def _renew(self) -> None:
        # Where Redis is away the link has noted it, and the next turn of the timer tries again: a
        # lease that lapsed meanwhile is taken back unless somebody else has claimed the job.
        with suppress(*LOSS_ERRORS):
            await self.step()

    async def step(self) -> None:
        """Renew every lease once."""
        for batch in self._holdings.owned():
            lost, lapsed = await self._call(batch, take_lapsed=False)
            for job_id in lost:
                self._lose(job_id.decode())
            # Redis was away for longer than a lease, or an end overtook this renewal. Only what
            # still runs is taken back.
            ours = [self._holdings.claims.get(job_id.decode()) for job_id in lapsed]
            running = [claim for claim in ours if claim is not None and not claim.ended]
            if running:
                await self._call(running, take_lapsed=True)

    async def _call(
        self, claims: "list[Claim]", *, take_lapsed: bool
    ) -> tuple[list[bytes], list[bytes]]:
        args = self._holdings.renewal(claims, take_lapsed=take_lapsed)
        lost, lapsed = await self._run(RENEW, (self._holdings.queue_name,), args)
        return lost, lapsed

    def _lose(self, job_id: str) -> None:
        claim = self._holdings.claims.get(job_id)
        # It may have ended, and its end been recorded, while the renewal was under way.
        if claim is None or claim.ended:
            return
        claim.owned = False
        logger.warning("job %s: lease lost, the job goes on but may run elsewhere too", job_id)
