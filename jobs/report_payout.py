"""Report how the transfers of a payout went: the job that follows their batch."""

from datetime import timedelta
from typing import ClassVar
from uuid import UUID

from . import BatchEnd, Context, Payload, Result, job


class ReportPayout(Payload):
    """Which payout; how its batch ended is filled in when it has."""

    kind: ClassVar[str] = "report_payout"

    payout: UUID
    batch: BatchEnd | None = None


class PayoutReported(Result):
    """How many payments were posted, were rejected, and came to nothing."""

    payout: UUID
    paid: int
    rejected: int
    failed: int


@job(ReportPayout, timeout=timedelta(seconds=10))
async def report_payout(ctx: Context, request: ReportPayout) -> PayoutReported:
    """Sum up one payout; who waits for it reads the answer."""
    del ctx
    ended = request.batch
    return PayoutReported(
        payout=request.payout,
        paid=ended.completed if ended else 0,
        rejected=ended.rejected if ended else 0,
        failed=ended.dead + ended.cancelled if ended else 0,
    )
