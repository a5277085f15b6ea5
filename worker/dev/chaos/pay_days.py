"""Pay days beside the transfers: batches, chains, slices and webhooks, and what must come of them.

Each pay day is a payout and an errand; a shop hears of both ends. As for the transfers, what must
come of it follows from what was ordered, down to the last follow-up.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from db.dev import deliveries_to, family_of, payout_reports
from db.webhooks import Endpoints
from jobs.pay_out import Payment, PayOut
from worker.dev.chaos.errand import PAY, Errand
from worker.dev.chaos.retrying import retry_until_up
from worker.dev.workload import TOO_MUCH_CENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.dev.shop import Shop
    from worker.dev.workload import Connections, Wallet

ORDERS_EACH: Final = 250
"""How many transfers are between two pay days."""
PAYEES: Final = 5
CENTS_MAX: Final = 300
ERRANDS: Final = 3
"""How many follow each other."""
ERRANDS_PAYEES: Final = 3


@dataclass(frozen=True, slots=True)
class PayDaysEnd:
    """What came of all pay days."""

    payouts: int
    errands: int
    messages: int
    """Different ones that the shop took."""
    deliveries: int
    """How often it took one."""
    refused: int
    wrong: "Sequence[str]"
    """What is not as it must be."""


@dataclass
class PayDays:
    """Orders pay days, and remembers what was promised for them."""

    connections: "Connections"
    shop: "Shop"
    prefix: str
    """What the keys of its jobs begin with."""
    wallets: "Sequence[Wallet]"
    chance: random.Random
    moved_cents: Counter[UUID] = field(default_factory=Counter)
    """By how much each account's balance must change."""
    _payouts: set[UUID] = field(default_factory=set)
    _errands: set[UUID] = field(default_factory=set)

    @property
    def _shop_name(self) -> str:
        return f"{self.prefix}shop"

    async def open(self) -> None:
        """Have the shop hear of ends."""
        async with self.connections.sessions.begin() as session:
            await Endpoints(session).add(self._shop_name, self.shop.url, self.shop.secret)

    async def order(self) -> None:
        """Order one pay day."""
        number = len(self._payouts)
        payer, *payees = [wallet.account for wallet in self.chance.sample(self.wallets, 1 + PAYEES)]
        payout = self._payout(payer, payees)
        errand = Errand(
            from_account=payer, to_accounts=tuple(payees[:ERRANDS_PAYEES]), more=ERRANDS - 1
        )
        self._moves(payer, errand.to_accounts, ERRANDS * int(PAY * 100))
        self._payouts.add(await self._enqueue(payout, f"payout-{number}"))
        self._errands.add(await self._enqueue(errand, f"errand-{number}"))

    def _payout(self, payer: UUID, payees: "Sequence[UUID]") -> PayOut:
        """Return payments to all, and one more to the last that the payer cannot make."""
        payments = []
        for payee in payees:
            cents = self.chance.randint(1, CENTS_MAX)
            self._moves(payer, [payee], cents)
            payments.append(_payment(payee, cents))
        payments.append(_payment(payees[-1], TOO_MUCH_CENTS))
        return PayOut(from_account=payer, currency="EUR", payments=tuple(payments))

    def _moves(self, payer: UUID, payees: "Sequence[UUID]", cents: int) -> None:
        for payee in payees:
            self.moved_cents[payer] -= cents
            self.moved_cents[payee] += cents

    async def _enqueue(self, payload: PayOut | Errand, key: str) -> UUID:
        enqueue = partial(
            self.connections.client.enqueue,
            payload,
            key=f"{self.prefix}{key}",
            notify=self._shop_name,
        )
        return (await retry_until_up(enqueue)).id

    async def end(self) -> PayDaysEnd:
        """Compare what came of them with what must."""
        ordered = self._payouts | self._errands
        async with self.connections.sessions() as session:
            family = await family_of(session, ordered)
            reports = await payout_reports(session, self._payouts)
            announced = await deliveries_to(session, self._shop_name)
        return PayDaysEnd(
            payouts=len(self._payouts),
            errands=len(self._errands) * ERRANDS,
            messages=len(self.shop.heard),
            deliveries=self.shop.heard.total(),
            refused=len(self.shop.refused),
            wrong=[
                *_compared("jobs of pay days", family, self._family()),
                *_compared("reports of payouts", Counter(map(_report, reports)), self._reports()),
                *_compared("messages to the shop", self.shop.heard.keys(), announced),
                *_compared("messages announced", len(announced), len(ordered)),
                *_compared("messages with another signature", self.shop.forged, 0),
            ],
        )

    def _family(self) -> Counter[tuple[str, str]]:
        days = len(self._payouts)
        return Counter(
            {
                ("pay_out", "completed"): days,
                ("chaos_errand", "completed"): days * ERRANDS,
                ("transfer_funds", "completed"): days * (PAYEES + ERRANDS * ERRANDS_PAYEES),
                ("transfer_funds", "rejected"): days,
            }
        )

    def _reports(self) -> Counter[Any]:
        return Counter([(str(one), PAYEES, 1, 0) for one in self._payouts])


def _payment(payee: UUID, cents: int) -> Payment:
    return Payment(to_account=payee, amount=Decimal(cents).scaleb(-2))


def _report(result: dict[str, Any] | None) -> tuple[str, int, int, int] | None:
    if result is None:
        return None  # it is not completed
    return (result["payout"], result["paid"], result["rejected"], result["failed"])


def _compared(what: str, found: object, wanted: object) -> list[str]:
    """Return a line where two are not the same.

    >>> _compared("eggs", 1, 2)
    ['eggs: 1 instead of 2']
    """
    return [] if found == wanted else [f"{what}: {found} instead of {wanted}"]
