"""Move money between two accounts of one currency."""

from datetime import timedelta
from typing import ClassVar
from uuid import UUID

from . import Context, Payload, Rejected, Result, job
from ._fields import Amount, Currency


class TransferFunds(Payload):
    """Which accounts, and how much."""

    kind: ClassVar[str] = "transfer_funds"

    from_account: UUID
    to_account: UUID
    amount: Amount
    currency: Currency

    def conflict_keys(self) -> tuple[str, ...]:
        """Two transfers that share an account would wait for each other's row lock."""
        return (str(self.from_account), str(self.to_account))


class Receipt(Result):
    """The transfer that was posted; its id is the job's."""

    transfer_id: UUID


@job(TransferFunds, timeout=timedelta(seconds=10))
async def transfer_funds(ctx: Context, order: TransferFunds) -> Receipt | Rejected:
    """Post one double-entry transfer, or reject it with the ledger's verdict."""
    verdict = await ctx.store.ledger.transfer(
        id=ctx.job_id,
        from_account=order.from_account,
        to_account=order.to_account,
        amount=order.amount,
        currency=order.currency,
    )
    if verdict != "posted":
        return Rejected(verdict)
    return Receipt(transfer_id=ctx.job_id)
