"""Pictures of reports: pages as typst sets them, of October's books."""

import csv
import io
import tempfile
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import typst

from db.store import Store
from jobs import _reports
from jobs._reports import as_pdf
from tests.pictures.books import DAYS, FIRST

PIXELS_PER_INCH = 96
JOB_ID = uuid.UUID("019a3b7c-52e0-7c41-9d0b-6c2a5f1e8d47")
END = datetime(2026, 11, 1, tzinfo=UTC)
ISSUER = ("Bank of Examples", "1 Sample Street", "10115 Berlin", "bank.example")
LIMIT = timedelta(minutes=1)


@dataclass
class Pages:
    """Sets the pages of a report, and keeps each as a picture."""

    sessions: Any
    folder: Path

    async def draw(self, name, read, *, pages):
        """Write `name-1.png` and so on, so many pages of what `read` reads from the books."""
        async with self.sessions() as session:
            books = Store(session).reports
            await books.take_snapshot(end=END, timezone="UTC", limit=LIMIT)
            content = await read(books)
            document = await _reports._document(content, books, JOB_ID, UTC, charts=True)
            document = replace(document, issuer=ISSUER)
            lines = io.BytesIO()

            async def keep(chunk):
                lines.write(chunk)

            await _reports._copy(content, books, UTC, keep, guarded=False)
        rows = csv.reader(io.StringIO(lines.getvalue().decode()), strict=True)
        with tempfile.TemporaryDirectory() as folder:
            as_pdf.write(document, rows, Path(folder) / f"{name}.pdf", lambda: None)
            for number, page in enumerate(_as_pictures(Path(folder))[:pages], 1):
                (self.folder / f"{name}-{number}.png").write_bytes(page)


def _as_pictures(folder):
    pages: Any = typst.compile(
        str(folder / "report.typ"),
        root=str(folder),
        font_paths=[str(as_pdf.FONTS)],
        format="png",
        ppi=PIXELS_PER_INCH,
    )
    return pages if isinstance(pages, list) else [pages]


async def draw_reports(sessions, books, folder):
    """Draw the three reports of October."""
    pages = Pages(sessions, folder)
    account = books.accounts["EUR"]["amelie.laurent"]
    midnights = [FIRST.replace(month=9, day=30)]
    midnights += [FIRST.replace(day=1 + day) for day in range(DAYS)] + [END]
    await pages.draw("statement", lambda reports: reports.statement(account, FIRST, END), pages=2)
    await pages.draw(
        "trial-balance",
        lambda reports: reports.trial_balance(FIRST, END, currency=None),
        pages=1,
    )
    await pages.draw(
        "volume", lambda reports: reports.transfer_volume(midnights, currency=None), pages=2
    )
