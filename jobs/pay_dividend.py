"""Pay the same amount from one account to every other user's account of its currency."""

from datetime import timedelta
from typing import ClassVar, Final
from uuid import UUID

from . import Context, Continue, Payload, Result, job
from ._fields import Amount, Currency
from .transfer_funds import TransferFunds

ACCOUNTS_PER_SLICE: Final = 200


class PayDividend(Payload):
    """Who pays, and how much each account gets."""

    kind: ClassVar[str] = "pay_dividend"

    from_account: UUID
    amount: Amount
    currency: Currency


class DividendPaid(Result):
    """How many transfers were enqueued; each has an outcome of its own."""

    transfers: int


@job(PayDividend, timeout=timedelta(seconds=30))
async def pay_dividend(ctx: Context, dividend: PayDividend) -> DividendPaid | Continue:
    """Enqueue one transfer per account, a slice of the accounts in each of many transactions.

    An account that is opened meanwhile is paid if its id comes behind those already seen.
    """
    after, transfers = ctx.cursor or (None, 0)
    accounts = await ctx.store.ledger.user_accounts(
        dividend.currency, after=after and UUID(after), limit=ACCOUNTS_PER_SLICE
    )
    paid = [account for account in accounts if account != dividend.from_account]
    await ctx.enqueue_many([_transfer(dividend, account) for account in paid])
    transfers += len(paid)
    ctx.progress(transfers, note="transfers enqueued")
    if len(accounts) < ACCOUNTS_PER_SLICE:
        return DividendPaid(transfers=transfers)
    return Continue([accounts[-1], transfers])


def _transfer(dividend: PayDividend, account: UUID) -> TransferFunds:
    return TransferFunds(
        from_account=dividend.from_account,
        to_account=account,
        amount=dividend.amount,
        currency=dividend.currency,
    )
