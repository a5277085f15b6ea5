"""Pay day: a batch of transfers and its report, a dividend in slices, and a shop that hears."""

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final
from uuid import UUID

from db.dev import queued_follow_ups
from db.webhooks import Endpoints
from jobs.pay_dividend import PayDividend
from jobs.pay_out import Payment, PayOut
from worker.dev.shop import Shop, listening
from worker.dev.workload import LOOK_EVERY_S

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from worker.dev.workload import Connections, Wallet

PAYMENTS: Final = 40
SALARY: Final = Decimal("3.50")
DIVIDEND: Final = Decimal("0.01")
WAIT_MAX_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class PayDay:
    """What came of it."""

    paid: int
    rejected: int
    dividends: int
    told: int
    """Webhooks that the shop received with a signature that fits."""


async def pay_day(connections: "Connections", run: str, wallets: "Sequence[Wallet]") -> PayDay:
    """Pay many out as one batch, pay a dividend to all in slices, and have a shop told.

    Args:
        connections: to the servers.
        run: what the keys of this run's jobs begin with.
        wallets: the first one in euros pays the others.
    """
    client = connections.client
    payer, *others = [wallet for wallet in wallets if wallet.currency == "EUR"]
    salaries = tuple(Payment(to_account=one.account, amount=SALARY) for one in others[:PAYMENTS])
    order = PayOut(from_account=payer.account, currency="EUR", payments=salaries)
    dividend = PayDividend(from_account=payer.account, amount=DIVIDEND, currency="EUR")
    with listening() as shop:
        name = f"{run}shop"
        async with connections.sessions.begin() as session:
            await Endpoints(session).add(name, shop.url, shop.secret)
        payout = await client.enqueue(order, key=f"{run}payout", notify=name)
        slices = await client.enqueue(dividend, key=f"{run}dividend")
        begun: Any = await payout.result(WAIT_MAX_S)
        reported: Any = await client.batch_handle(begun.batch).result(WAIT_MAX_S)
        shares: Any = await slices.result(WAIT_MAX_S)
        async with asyncio.timeout(WAIT_MAX_S):
            await _settled(connections, slices.id, shop)
        async with connections.sessions.begin() as session:
            await Endpoints(session).remove(name)
    return PayDay(reported.paid, reported.rejected, shares.transfers, len(shop.heard))


async def _settled(connections: "Connections", dividend: UUID, shop: Shop) -> None:
    """Wait until every share is paid and the shop has heard."""
    async with connections.sessions() as session:
        while await queued_follow_ups(session, dividend) or not shop.heard:
            await session.rollback()
            await asyncio.sleep(LOOK_EVERY_S)
