"""Letters and cards: the jobs of the machine's own tests, and what became of them.

The jobs are the files of `tests/samples/`. Databases of the tests accept their kinds; the fixture
`letters` lets the registry know them too, as if the files were in `jobs/`.
"""

from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import text

import jobs
from db.kinds import register_kinds
from worker.app.schema import terms_of

SAMPLES = str(Path(__file__).parent / "samples")

TABLE = """
    CREATE TABLE samples.letters (
      id uuid NOT NULL, address text NOT NULL, pages bigint NOT NULL CHECK (pages <> 99))
"""
"""A letter of 99 pages breaks a rule that the handler does not know."""


@contextmanager
def in_the_folder():
    """Add the samples to the folder of jobs for the length of a block."""
    jobs.__path__.append(SAMPLES)
    jobs.registry.cache_clear()
    try:
        yield
    finally:
        jobs.__path__.remove(SAMPLES)
        jobs.registry.cache_clear()


with in_the_folder():
    file: Any = import_module("jobs.send_letter")
    SEND_CARD: jobs.Job = import_module("jobs.send_card").send_card
    repeat: Any = import_module("jobs.repeat_value")
    copy: Any = import_module("jobs.copy_letter")
    wind: Any = import_module("jobs.wind_clock")
    count: Any = import_module("jobs.count_batch")
    printing: Any = import_module("jobs.print_catalog")

SEND_LETTER: jobs.Job = file.send_letter
SendLetter: Any = file.SendLetter
RepeatValue: Any = repeat.RepeatValue
Repeated: Any = repeat.Repeated
LetterSent: Any = file.LetterSent
COPY_LETTER: jobs.Job = copy.copy_letter
CopyLetter: Any = copy.CopyLetter
WindClock: Any = wind.WindClock
COUNT_BATCH: jobs.Job = count.count_batch
CountBatch: Any = count.CountBatch
BatchCounted: Any = count.BatchCounted
PrintCatalog: Any = printing.PrintCatalog
CatalogPrinted: Any = printing.CatalogPrinted


SAMPLE_JOBS: list[jobs.Job] = [
    SEND_LETTER,
    SEND_CARD,
    repeat.repeat_value,
    COPY_LETTER,
    COUNT_BATCH,
    wind.wind_clock,
    printing.print_catalog,
]


def a_letter(pages=1, address="12 High Street"):
    return SendLetter(address=address, pages=pages)


def a_card():
    """Return a personal payload."""
    return SEND_CARD.payload.from_wire({"name": "Wilhelmina"})


async def letters_at(sessions, address):
    """Return the ids of the letters that were sent to an address, each as often as it was."""
    async with sessions() as session:
        rows = await session.execute(
            text("SELECT id FROM samples.letters WHERE address = :address"), {"address": address}
        )
        return list(rows.scalars())


async def add_samples(connection):
    """Give a migrated database the table and the kinds of the samples."""
    await connection.exec_driver_sql("CREATE SCHEMA samples")
    await connection.exec_driver_sql(TABLE)
    await register_kinds(connection, {job.kind: terms_of(job) for job in SAMPLE_JOBS})
