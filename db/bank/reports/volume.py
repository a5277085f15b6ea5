"""The volume of transfers, day by day: sums, refusals and the largest, as one snapshot has them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from db.bank.money import iso_exponent
from db.bank.reports.contents import (
    BooksError,
    CurrencyVolume,
    DayVolume,
    LargeTransfer,
    TransferVolume,
    integers,
)
from db.bank.reports.queries import (
    COUNT_REJECTED,
    LARGEST_TRANSFERS,
    LEDGER_EXPONENTS,
    SUM_VOLUME,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

LARGEST_TRANSFERS_MAX: Final = 10


async def sum_volume(
    session: "AsyncSession", midnights: Sequence[datetime], currency: str | None
) -> TransferVolume:
    """Sum up the transfers of every day; see `Reports.transfer_volume`."""
    query = {
        "bounds": list(midnights),
        "first": midnights[0],
        "last": midnights[-1],
        "currency": currency,
    }
    sums = {}
    for row in await session.execute(SUM_VOLUME, query):
        facts = integers(row._mapping)  # noqa: SLF001 - SQLAlchemy's name
        if not facts.pop("proved"):
            raise BooksError(
                f"world:{row.currency}: its entries between versions {row.first_entry} and "
                f"{row.last_entry} are not the day's deposits and withdrawals"
            )
        sums[row.currency, row.bucket] = facts
    query["first"] = midnights[1]
    refusals = (await session.execute(COUNT_REJECTED, query)).all()
    moved = {name for name, bucket in sums if bucket > 1}
    largest, digits = await _largest_transfers(session, moved, midnights[1], midnights[-1])
    refused = {row.currency for row in refusals if row.currency} - moved
    digits |= await _digits_where_nothing_moved(session, refused)
    days = len(midnights) - 2
    return TransferVolume(
        tuple(midnights[1:]),
        tuple(
            _currency_volume(name, digits[name], days, sums, refusals, largest[name])
            for name in sorted(digits)
        ),
    )


async def _largest_transfers(
    session: "AsyncSession", currencies: Iterable[str], start: datetime, end: datetime
) -> tuple[Mapping[str, Sequence[LargeTransfer]], dict[str, int]]:
    """Return the largest by currency, and the digits of each currency."""
    query = {"currencies": sorted(currencies), "first": start, "last": end}
    found = defaultdict[str, list[LargeTransfer]](list)
    digits = {}
    for row in await session.execute(LARGEST_TRANSFERS, query | {"count": LARGEST_TRANSFERS_MAX}):
        digits[row.currency] = row.digits
        found[row.currency].append(
            LargeTransfer(
                *(row.id, row.posted_at, row.payer, row.payee, row.amount),
                payer_name=row.payer_name,
                payee_name=row.payee_name,
            )
        )
    return found, digits


async def _digits_where_nothing_moved(
    session: "AsyncSession", currencies: Iterable[str]
) -> dict[str, int]:
    """Return the digits of those that are currencies: here by an account, or to ISO 4217.

    What a rejected payload called its currency need not be one.
    """
    codes = [f"world:{currency}" for currency in currencies]
    rows = await session.execute(LEDGER_EXPONENTS, {"world_codes": codes})
    here = {row.currency: row.exponent for row in rows}
    elsewhere = {
        currency: exponent
        for currency in currencies
        if (exponent := iso_exponent(currency)) is not None
    }
    return elsewhere | here


def _currency_volume(  # noqa: PLR0913, PLR0917 - the figures of four queries
    currency: str,
    digits: int,
    days: int,
    sums: Mapping[tuple[str, int], dict[str, Any]],
    refusals: Sequence[Any],
    largest: Sequence[LargeTransfer],
) -> CurrencyVolume:
    refused = [row for row in refusals if row.currency == currency]
    by_reason = Counter[str]()
    by_bucket = Counter[int]()
    for row in refused:
        by_reason[row.code] += row.jobs
        by_bucket[row.bucket] += row.jobs

    def volume(day: int) -> DayVolume:
        bucket = day + 2
        before = sums.get((currency, bucket - 1), {})
        facts = {
            name: value
            for name, value in sums.get((currency, bucket), {}).items()
            if name not in ("currency", "bucket") and value is not None
        }
        return DayVolume(
            day,
            **facts,
            rejected=by_bucket[bucket],
            transfers_before=before.get("transfers", 0),
            total_before=before.get("total", 0),
        )

    return CurrencyVolume(
        currency,
        digits,
        tuple(volume(day) for day in range(days)),
        dict(by_reason),
        tuple(largest),
    )
