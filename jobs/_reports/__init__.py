"""Reports: from one snapshot of the books to a file that people can use.

The lines stream from the database into a local file (`building.py`); the snapshot is let go; a
process of its own makes the document (`render.py`); the result appears under its name at once
(`publish.py`). What a report says stands in `statement.py`, `trial_balance.py`
and `transfer_volume.py`; how a format looks, in `as_csv.py` and its likes.
"""

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from jobs._reports import building, statement, transfer_volume, trial_balance
from jobs._reports.destination import DestinationError, Published
from jobs._reports.issuer import NOBODY, Issuer, IssuerError
from jobs._reports.limits import refusal
from jobs._reports.publish import destination_of
from jobs._reports.workspace import LINES, OUTPUT, workspace

if TYPE_CHECKING:
    from datetime import tzinfo
    from uuid import UUID

    from db.bank.reports import Reports as Books
    from db.bank.reports import Sink, Statement, TransferVolume, TrialBalance
    from jobs._progress import ShowProgress
    from jobs._reports.document import Document, Format

    Content = Statement | TrialBalance | TransferVolume

__all__ = ["DestinationError", "Issuer", "IssuerError", "Published", "Reports"]

CHARTED: Final = ("pdf", "xlsx")
"""The formats that draw."""


class Reports:
    """Builds reports and puts them where the URL says; one per process.

    Raises:
        DestinationError: the URL is neither a directory nor a bucket.
    """

    def __init__(self, url: str, issuer: Issuer = NOBODY) -> None:
        self.url = url
        self._issuer = issuer
        self._destination = destination_of(url)

    def refusal(self, lines: int, format: "Format") -> str | None:  # noqa: A002 - the report's own word
        """Return why a report of so many lines is not made in this format, or None."""
        return refusal(lines, format)

    async def build(  # noqa: PLR0913 - what a report is made of, by name
        self,
        content: "Content",
        books: "Books",
        *,
        job_id: "UUID",
        format: "Format",  # noqa: A002 - the report's own word
        timezone: "tzinfo",
        progress: "ShowProgress",
    ) -> Published:
        """Build one report and publish it; the books' snapshot is let go as soon as it was read.

        Args:
            content: the totals, read from the same snapshot as the lines will be.
            books: the open snapshot.
            job_id: names the file, so that a run after a crash finds what the first one did.
            format: the form of the file.
            timezone: in which times are written.
            progress: shown how many lines are done, the same in every stage.
        """
        document = replace(
            await _document(content, books, job_id, timezone, charts=format in CHARTED),
            issuer=self._issuer.lines,
            logo=self._issuer.logo_name,
        )
        with workspace(self._destination.workspace()) as folder:
            copy = partial(_copy, content, books, timezone, guarded=format == "csv")
            total = document.lines

            def tell(stage: building.Stage, done: int) -> None:
                progress(min(done, total), total, stage)

            tell("reading", 0)
            if format == "csv":
                await building.write_csv(document, folder, copy, tell)
                await books.release()
            else:
                await building.read_lines(folder / LINES, copy, tell)
                await books.release()
                self._issuer.lay_logo(folder)
                await building.write_rendered(document, folder, format, tell)
            tell("publishing", document.lines)
            return await asyncio.to_thread(
                self._destination.publish, folder / OUTPUT, _name(document, format)
            )


async def _document(
    content: "Content", books: "Books", job_id: "UUID", timezone: "tzinfo", *, charts: bool
) -> "Document":
    match content.report:
        case "account_statement":
            series = await books.balance_over_time(content) if charts else []
            return statement.document_of(content, series, job_id=job_id, timezone=timezone)
        case "trial_balance":
            return trial_balance.document_of(content, job_id=job_id, timezone=timezone)
        case "transfer_volume":
            return transfer_volume.document_of(content, job_id=job_id, timezone=timezone)


async def _copy(
    content: "Content", books: "Books", timezone: "tzinfo", sink: "Sink", *, guarded: bool
) -> None:
    match content.report:
        case "account_statement":
            await books.copy_statement(content, sink, guarded=guarded)
        case "trial_balance":
            await books.copy_trial_balance(content, sink, guarded=guarded)
        case "transfer_volume":
            await sink(transfer_volume.lines_of(content, timezone=timezone))


def _name(document: "Document", format: str) -> str:  # noqa: A002 - the report's own word
    """Return where the report lies: by its kind, its last day, and the job that made it."""
    day = next(figure.value for figure in document.facts if figure.name == "last_day")
    return f"{document.report}/{day}/{document.job_id}.{format}"
