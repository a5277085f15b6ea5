"""What happens in the demo, as values: who signs up, who pays whom, and what goes wrong on purpose.

Everything follows from a seed. `run` makes names and keys new each time, so that the demo can be
played again on the same database.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from jobs import Request
from jobs.create_user import CreateUser
from jobs.transfer_funds import TransferFunds

USERS: Final = 240
TWINS: Final = 20  # ask for a name that is taken, in another case or Unicode form
BAD_ADDRESSES: Final = 10
TRANSFERS: Final = 5_000
CROSSING_PAIRS: Final = 600  # A pays B while B pays A
TOO_MUCH: Final = 250  # more than the payer can have
SENT_TWICE: Final = 300  # the same key and payload again, as after a lost answer
DEPOSIT: Final = "1000.00"
CURRENCIES: Final = ("EUR", "USD", "JPY")

FIRST_NAMES: Final = (
    "amélie", "björn", "chiara", "dmitri", "eleni", "farah", "günther", "hana", "ines", "joão",
    "katarzyna", "łukasz", "mei", "noor", "oğuz", "priya", "quentin", "rosa", "søren", "théo",
    "ursula", "václav", "wanjiru", "ximena", "yuki", "zoë", "straße", "ådne", "ñusta", "ælfred",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wallet:
    """One account that money moves between."""

    account: UUID
    currency: str


def sign_ups(run: str, chance: random.Random) -> list[Request]:
    """Return the users, some of whom want what they cannot have."""
    names = [f"{FIRST_NAMES[n % len(FIRST_NAMES)]}-{n}-{run}" for n in range(USERS)]
    wishes = [_user(name, f"user{n}.{run}@example.com", chance) for n, name in enumerate(names)]
    wishes += [
        _user(name.upper(), f"twin{n}.{run}@example.com", chance)
        for n, name in enumerate(chance.sample(names, TWINS))
    ]
    wishes += [
        _user(f"lost-{n}-{run}", f"not-an-address-{n}", chance) for n in range(BAD_ADDRESSES)
    ]
    return [Request(wish, key=f"demo-{run}-user-{n}") for n, wish in enumerate(wishes)]


def deposits(run: str, wallets: Sequence[Wallet], worlds: dict[str, UUID]) -> list[Request]:
    """Return the money that comes in from outside, once for each wallet."""
    return [
        Request(
            _transfer(worlds[wallet.currency], wallet, _whole(DEPOSIT, wallet.currency)),
            key=f"demo-{run}-deposit-{n}",
        )
        for n, wallet in enumerate(wallets)
    ]


def payments(run: str, wallets: Sequence[Wallet], chance: random.Random) -> list[Request]:
    """Return the transfers: most go through, some must not, some are asked for twice."""
    by_currency = {
        currency: [wallet for wallet in wallets if wallet.currency == currency]
        for currency in CURRENCIES
    }
    orders: list[TransferFunds] = []
    for _ in range(CROSSING_PAIRS // 2):
        one, other = chance.sample(by_currency["EUR"][:12], 2)
        orders += [
            _transfer(one.account, other, _amount(one.currency, chance)),
            _transfer(other.account, one, _amount(one.currency, chance)),
        ]
    for _ in range(TOO_MUCH):
        payer, payee = _pair(by_currency, chance)
        orders.append(_transfer(payer.account, payee, _whole("987654321", payer.currency)))
    while len(orders) < TRANSFERS:
        payer, payee = _pair(by_currency, chance)
        orders.append(_transfer(payer.account, payee, _amount(payer.currency, chance)))
    keyed = [Request(order, key=f"demo-{run}-payment-{n}") for n, order in enumerate(orders)]
    return keyed + chance.sample(keyed, SENT_TWICE)


def _user(username: str, email: str, chance: random.Random) -> CreateUser:
    currencies = ("EUR", *chance.sample(CURRENCIES[1:], chance.randint(0, 2)))
    return CreateUser(username=username, email=email, currencies=currencies)


def _pair(by_currency: dict[str, list[Wallet]], chance: random.Random) -> tuple[Wallet, Wallet]:
    payer, payee = chance.sample(by_currency[chance.choice(CURRENCIES)], 2)
    return payer, payee


def _transfer(from_account: UUID, to: Wallet, amount: str) -> TransferFunds:
    return TransferFunds.from_wire(
        {
            "from_account": str(from_account),
            "to_account": str(to.account),
            "amount": amount,
            "currency": to.currency,
        }
    )


def _amount(currency: str, chance: random.Random) -> str:
    return _whole(f"{chance.randint(1, 60)}.{chance.randint(0, 99):02}", currency)


def _whole(amount: str, currency: str) -> str:
    """A yen has no cents."""
    return amount.partition(".")[0] if currency == "JPY" else amount
