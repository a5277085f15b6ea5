"""Pay many from one account: a batch of transfers, and a report when all of them are over."""

from datetime import timedelta
from typing import Annotated, ClassVar, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from . import Context, Payload, Result, job
from ._fields import Amount, Currency
from .report_payout import ReportPayout
from .transfer_funds import TransferFunds

PAYMENTS_MAX: Final = 500
"""More would not fit into a payload: a longer list is several payouts."""


class Payment(BaseModel):
    """Whom to pay, and how much."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    to_account: UUID
    amount: Amount


class PayOut(Payload):
    """From which account, in which currency, to whom."""

    kind: ClassVar[str] = "pay_out"

    from_account: UUID
    currency: Currency
    payments: Annotated[
        tuple[Payment, ...],
        Field(
            min_length=1,
            max_length=PAYMENTS_MAX,
            examples=[[{"to_account": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12", "amount": "12.34"}]],
        ),
    ]


class PayoutBegun(Result):
    """The transfers' batch; `report_payout` follows it."""

    batch: UUID
    payments: int


@job(PayOut, timeout=timedelta(seconds=30))
async def pay_out(ctx: Context, order: PayOut) -> PayoutBegun:
    """Enqueue a transfer for each payment, and the report of how they went.

    Each transfer is rejected or posted for itself: one that the account cannot cover stops no
    other.
    """
    transfers = [
        TransferFunds(
            from_account=order.from_account,
            to_account=payment.to_account,
            amount=payment.amount,
            currency=order.currency,
        )
        for payment in order.payments
    ]
    batch = await ctx.batch(transfers, then=ReportPayout(payout=ctx.job_id))
    return PayoutBegun(batch=batch, payments=len(transfers))
