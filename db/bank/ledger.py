"""The ledger: accounts, and the one way that money moves between them."""

from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import text

from db.bank import money
from db.statements import clean
from db.transaction import driver_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

Verdict = (
    Literal[
        "posted",
        "already_posted",
        "same_account",
        "amount_not_positive",
        "unknown_account",
        "wrong_currency",
        "account_not_open",
        "balance_out_of_range",
        "insufficient_funds",
    ]
    | money.AmountVerdict
)

POST_TRANSFER: Final = clean("SELECT verdict FROM post_transfer($1, $2, $3, $4, $5)")

# Sorted, so that two users who open the same currencies in another order cannot deadlock.
OPEN_WORLD_ACCOUNTS = text("""
    INSERT INTO accounts (id, code, currency, floor)
    SELECT world_account_id(currency), 'world:' || currency, currency, NULL
    FROM unnest(CAST(:currencies AS text[])) AS currency
    ORDER BY currency
    ON CONFLICT DO NOTHING
""")

OPEN_USER_ACCOUNTS = text("""
    INSERT INTO accounts (code, user_id, currency)
    SELECT 'user:' || :user_id || ':' || currency, CAST(:user_id AS uuid), currency
    FROM unnest(CAST(:currencies AS text[])) AS currency
    RETURNING currency, id
""")

WORLD_ACCOUNT = text("SELECT world_account_id(:currency)")

BALANCE_SUMS = text("""
    SELECT currency, sum(balance)::bigint AS total, count(*) AS accounts
    FROM accounts GROUP BY currency ORDER BY currency
""")


BALANCES = text("SELECT id, balance FROM accounts WHERE id = ANY(CAST(:ids AS uuid[]))")


class Ledger:
    """The ledger as one session sees it."""

    def __init__(self, session: "AsyncSession") -> None:
        self._session = session

    async def transfer(
        self,
        *,
        id: "UUID",  # noqa: A002 - the transfer's own id, as the table calls it
        from_account: "UUID",
        to_account: "UUID",
        amount: "Decimal",
        currency: str,
    ) -> Verdict:
        """Post one transfer, or return why not: one statement, both accounts locked in id order.

        Args:
            id: the transfer's id; a second post under the same id changes nothing.
            from_account: who pays.
            to_account: who is paid.
            amount: a positive decimal with no more digits than the currency has.
            currency: ISO 4217, the currency of both accounts.
        """
        minor = money.to_minor_units(amount, currency)
        if not isinstance(minor, int):
            return minor
        driver = await driver_of(self._session)
        verdict: Verdict = await driver.fetchval(
            POST_TRANSFER, id, from_account, to_account, minor, currency
        )
        return verdict

    async def open_accounts(
        self, user_id: "UUID", currencies: "Iterable[str]"
    ) -> "dict[str, UUID] | Literal['unknown_currency']":
        """Open the user's account in each currency, and `world:<CCY>` where it is missing.

        Returns:
            The new account's id by currency.
        """
        wanted = sorted(set(currencies))
        if any(money.exponent(currency) is None for currency in wanted):
            return "unknown_currency"
        await self._session.execute(OPEN_WORLD_ACCOUNTS, {"currencies": wanted})
        rows = await self._session.execute(
            OPEN_USER_ACCOUNTS, {"user_id": str(user_id), "currencies": wanted}
        )
        return {row.currency: row.id for row in rows}

    async def world_account(self, currency: str) -> "UUID":
        """Return the id of `world:<CCY>`, where deposits come from and withdrawals go."""
        account: UUID = await self._session.scalar(WORLD_ACCOUNT, {"currency": currency})
        return account

    async def balances(self, accounts: "Iterable[UUID]") -> "dict[UUID, int]":
        """Return accounts' balances in minor units."""
        rows = await self._session.execute(BALANCES, {"ids": list(accounts)})
        return {row.id: row.balance for row in rows}

    async def balance_sums(self) -> dict[str, int]:
        """Return Σ balance by currency, in minor units: 0 everywhere, forever."""
        rows = await self._session.execute(BALANCE_SUMS)
        return {row.currency: row.total for row in rows}
