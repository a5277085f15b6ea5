"""Reports: what one snapshot of the books holds, summed up for a page and streamed for a file.

Everything here reads in the transaction that `take_snapshot` began to look through, so a report's
lines, totals and chart are of one moment. Amounts are minor units until they leave by COPY.
"""

from db.bank.reports.books import Reports
from db.bank.reports.contents import (
    BooksError,
    CurrencyTotals,
    CurrencyVolume,
    DayVolume,
    LargeTransfer,
    Sink,
    Snapshot,
    Statement,
    TransferVolume,
    TrialBalance,
)

__all__ = [
    "BooksError",
    "CurrencyTotals",
    "CurrencyVolume",
    "DayVolume",
    "LargeTransfer",
    "Reports",
    "Sink",
    "Snapshot",
    "Statement",
    "TransferVolume",
    "TrialBalance",
]
