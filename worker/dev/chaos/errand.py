"""A job of chaos' own: a chain of follow-ups, each in slices, of which few run at a time.

No worker but `python -m worker.dev.chaos.member` knows it, so `jobs/` stays what callers can ask
for. The money that it moves says whether each slice took effect, and once.
"""

from datetime import timedelta
from decimal import Decimal
from typing import ClassVar, Final
from uuid import UUID

from jobs import Context, Continue, Payload, Retry, job
from jobs.transfer_funds import TransferFunds

AT_A_TIME: Final = 2
PAY: Final = Decimal("0.01")
RETRY: Final = Retry(attempts_max=20, base=timedelta(seconds=0.2), cap=timedelta(seconds=2))


class Errand(Payload):
    """From which account, to which, and how many more follow."""

    kind: ClassVar[str] = "chaos_errand"

    from_account: UUID
    to_accounts: tuple[UUID, ...]
    more: int


@job(Errand, timeout=timedelta(seconds=10), limit=AT_A_TIME, retry=RETRY)
async def run_errand(ctx: Context, errand: Errand) -> Continue | None:
    """Have each account paid in a slice of its own, then send the next errand the same way."""
    paid = ctx.cursor or 0
    await ctx.enqueue(
        TransferFunds(
            from_account=errand.from_account,
            to_account=errand.to_accounts[paid],
            amount=PAY,
            currency="EUR",
        )
    )
    if paid + 1 < len(errand.to_accounts):
        return Continue(paid + 1)
    if errand.more:
        await ctx.enqueue(errand.model_copy(update={"more": errand.more - 1}))
    return None
