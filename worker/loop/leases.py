"""Leases: one timer renews those of all jobs that this worker holds."""

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from .connection import LOSS_ERRORS, is_refusal
from .scripts import RENEW

if TYPE_CHECKING:
    from .claims import Claim, Claims
    from .lease_watchdog import LeaseWatchdog
    from .scripts import RunScript

logger = logging.getLogger("arq.worker")


class LeaseKeeper:
    """Renews the leases of the held jobs for as long as there are any."""

    def __init__(self, claims: "Claims", run: "RunScript", watchdog: "LeaseWatchdog") -> None:
        self._claims = claims
        self._run = run
        self._watchdog = watchdog
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the timer unless it runs; cheap, because it is called for every claim."""
        if self._timer is None:
            self._set_timer()

    def renew_soon(self) -> None:
        """Renew now, and again after the interval for as long as anything is held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._claims.held:
            self._watchdog.rest()
            return
        self._set_timer()
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.get_running_loop().create_task(self._renew())

    def _set_timer(self) -> None:
        self._watchdog.loop_is_alive()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._claims.renewal_interval_s, self.renew_soon)

    async def stop(self) -> None:
        """Stop renewing; what is still held will lapse."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait({self._renewal})
            self._renewal = None
        self._watchdog.stop()

    async def _renew(self) -> None:
        # If Redis is away, the connection has noted it and the timer tries again: a lease that
        # lapsed meanwhile is taken back unless another worker has claimed the job.
        with suppress(*LOSS_ERRORS):
            await self.step()

    async def step(self) -> None:
        """Renew every lease once."""
        for batch in self._claims.owned():
            lost, lapsed = await self._call(batch, take_lapsed=False)
            for job_id in lost:
                self._lose(job_id.decode())
            # Redis was away for longer than a lease, or a completion overtook this renewal. Only
            # jobs that still run are taken back.
            ours = [self._claims.held.get(job_id.decode()) for job_id in lapsed]
            running = [claim for claim in ours if claim is not None and not claim.ended]
            if running:
                await self._call(running, take_lapsed=True)

    async def _call(
        self, claims: "list[Claim]", *, take_lapsed: bool
    ) -> tuple[list[bytes], list[bytes]]:
        keys, args = self._claims.renewal(claims, take_lapsed=take_lapsed)
        try:
            lost, lapsed = await self._run(RENEW, keys, args)
        except LOSS_ERRORS as error:
            if not is_refusal(error):
                raise
            return await self._call_singly(claims, error, take_lapsed=take_lapsed)
        return lost, lapsed

    async def _call_singly(
        self, claims: "list[Claim]", error: Exception, *, take_lapsed: bool
    ) -> tuple[list[bytes], list[bytes]]:
        """Renew one by one what Redis refuses to renew together."""
        if len(claims) == 1:
            logger.warning("job %s: its lease cannot be renewed: %s", claims[0].job_id, error)
            return [], []
        lost: list[bytes] = []
        lapsed: list[bytes] = []
        for claim in claims:
            one_lost, one_lapsed = await self._call([claim], take_lapsed=take_lapsed)
            lost += one_lost
            lapsed += one_lapsed
        return lost, lapsed

    def _lose(self, job_id: str) -> None:
        claim = self._claims.held.get(job_id)
        # The job may have ended, and been recorded, while the renewal was under way.
        if claim is None or claim.ended:
            return
        claim.owned = False
        logger.warning("job %s: lease lost, the job goes on but may run elsewhere too", job_id)
