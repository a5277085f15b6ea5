"""The ledger: accounts, and the one way that money moves between them."""

from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import text

from db.bank.money import iso_exponent
from db.statements import clean
from db.transaction import driver_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

Verdict = Literal[
    "posted",
    "already_posted",
    "same_account",
    "amount_not_positive",
    "unknown_account",
    "unknown_currency",
    "wrong_currency",
    "too_many_decimals",
    "amount_too_large",
    "account_not_open",
    "balance_out_of_range",
    "insufficient_funds",
]

# The amount goes out as it is written: the accounts that the statement locks know their digits.
POST_TRANSFER: Final = clean(
    "SELECT verdict FROM post_transfer($1, $2, $3, $4, $5, p_decimal => true)"
)

HAS_CURRENCY = text("SELECT EXISTS (SELECT FROM accounts WHERE code = 'world:' || :currency)")

# Sorted, so that two users who open the same currencies in another order cannot deadlock.
OPEN_WORLD_ACCOUNTS = text("""
    INSERT INTO accounts (id, code, currency, exponent, floor)
    SELECT world_account_id(currency), 'world:' || currency, currency, exponent, NULL
    FROM unnest(CAST(:currencies AS text[]), CAST(:exponents AS smallint[]))
      AS wanted (currency, exponent)
    ORDER BY currency
    ON CONFLICT DO NOTHING
""")

# With the exponent of the currency's first account: a trigger sees to it.
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


USER_ACCOUNTS = text("""
    SELECT id FROM accounts
    WHERE currency = :currency AND user_id IS NOT NULL AND status = 'open'
      AND (CAST(:after AS uuid) IS NULL OR id > :after)
    ORDER BY id LIMIT :limit
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
            amount: a positive decimal with no more digits than the accounts have.
            currency: the currency of both accounts, whether or not ISO 4217 still has it.
        """
        driver = await driver_of(self._session)
        verdict: Verdict = await driver.fetchval(
            POST_TRANSFER, id, from_account, to_account, amount, currency
        )
        if verdict == "wrong_currency" and not await self._has_currency(currency):
            return "unknown_currency"
        return verdict

    async def _has_currency(self, currency: str) -> bool:
        if iso_exponent(currency) is not None:
            return True
        known: bool = await self._session.scalar(HAS_CURRENCY, {"currency": currency})
        return known

    async def open_accounts(
        self, user_id: "UUID", currencies: "Iterable[str]"
    ) -> "dict[str, UUID] | Literal['unknown_currency']":
        """Open the user's account in each currency, and `world:<CCY>` where it is missing.

        A currency that ISO 4217 does not have, or no longer, gets no new account.

        Returns:
            The new account's id by currency.
        """
        wanted = sorted(set(currencies))
        exponents = [iso_exponent(currency) for currency in wanted]
        if None in exponents:
            return "unknown_currency"
        await self._session.execute(
            OPEN_WORLD_ACCOUNTS, {"currencies": wanted, "exponents": exponents}
        )
        rows = await self._session.execute(
            OPEN_USER_ACCOUNTS, {"user_id": str(user_id), "currencies": wanted}
        )
        return {row.currency: row.id for row in rows}

    async def world_account(self, currency: str) -> "UUID":
        """Return the id of `world:<CCY>`, where deposits come from and withdrawals go."""
        account: UUID = await self._session.scalar(WORLD_ACCOUNT, {"currency": currency})
        return account

    async def user_accounts(
        self, currency: str, *, after: "UUID | None", limit: int
    ) -> "list[UUID]":
        """Return the next open accounts of users in a currency, in order of id.

        Args:
            currency: that of the accounts.
            after: the last account of the page before; None begins.
            limit: accounts at most.
        """
        page = {"currency": currency, "after": after, "limit": limit}
        return list((await self._session.execute(USER_ACCOUNTS, page)).scalars())

    async def balances(self, accounts: "Iterable[UUID]") -> "dict[UUID, int]":
        """Return accounts' balances in minor units."""
        rows = await self._session.execute(BALANCES, {"ids": list(accounts)})
        return {row.id: row.balance for row in rows}

    async def balance_sums(self) -> dict[str, int]:
        """Return Σ balance by currency, in minor units: 0 everywhere, forever."""
        rows = await self._session.execute(BALANCE_SUMS)
        return {row.currency: row.total for row in rows}
