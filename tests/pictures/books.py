"""The books that the pictures show: a small bank's October, the same every time."""

import random
from datetime import UTC, datetime, timedelta

from tests.bank.reports.kit import Books, post_at

HOLDERS = (
    *("amelie.laurent", "jonas.weber", "ines.carvalho", "marta.kowalska", "oskar.lindqvist"),
    *("priya.raman", "tomas.novak", "yuki.tanaka", "lena.hoffmann", "diego.romero"),
)
CURRENCIES = {"EUR": 8, "USD": 3, "JPY": 1}
"""How often each is drawn."""
FIRST = datetime(2026, 10, 1, tzinfo=UTC)
DAYS = 31
QUIET_DAYS = {3, 4, 10, 11, 12, 17, 18, 24, 25}
"""Days without a transfer, counted from 0."""


async def open_october(sessions):
    """Open the holders' accounts and post a month's transfers."""
    books = await Books(sessions).open(HOLDERS, tuple(CURRENCIES))
    worlds = {currency: await books.world(currency) for currency in CURRENCIES}
    luck = random.Random(11)
    async with sessions() as session, session.begin():
        for at in _times(luck):
            currency = luck.choices(list(CURRENCIES), list(CURRENCIES.values()))[0]
            payer, payee = luck.sample(list(books.accounts[currency].values()), 2)
            amount = int(luck.lognormvariate(9.5, 0.9)) + 100
            if luck.random() < 0.4:
                payer, amount = worlds[currency], amount * 3
            # Whoever has too little is refused, here as anywhere.
            await post_at(session, at, payer, payee, amount, currency)
    return books


def _times(luck):
    for day in range(DAYS):
        if day not in QUIET_DAYS:
            seconds = sorted(luck.randrange(6 * 3600, 22 * 3600) for _ in range(28))
            yield from (FIRST + timedelta(days=day, seconds=second) for second in seconds)
