"""Build one report straight away, with a progress bar."""

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import uuid4

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from db.execution import JobRef
from db.store import Store
from jobs import registry
from jobs._payload import validation_message
from worker.app.services import open_services
from worker.cli._connections import open_connections
from worker.cli._options import UsageError, command_line
from worker.errors import tell
from worker.execution.delivery import Delivery, with_payload
from worker.execution.executor import Executor
from worker.execution.outcome import Finished, Later
from worker.monitoring.events import Events

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from jobs._progress import ShowProgress

app = command_line()

KIND: Final = "build_report"
NOT_BUILT: Final = 1
TRIES_MAX: Final = 60
"""Waits for transactions in flight and servers that are away; then a worker may go on."""

ReportArgument = Annotated[
    str, typer.Argument(help="account_statement, trial_balance or transfer_volume.")
]
Format = Annotated[str, typer.Option(help="csv, json, xlsx or pdf.")]
Account = Annotated[str | None, typer.Option(help="The id of the account, for its statement.")]
Currency = Annotated[str | None, typer.Option(help="Only this currency.")]
FirstDay = Annotated[str | None, typer.Option(help="As 2026-11-01; default: from the beginning.")]
LastDay = Annotated[str | None, typer.Option(help="As 2026-11-30; default: until now.")]
Timezone = Annotated[str, typer.Option(help="Whose days, by its IANA name.")]
To = Annotated[
    str | None, typer.Option(help="A file:// or s3:// URL; default: TELLER_REPORTS_URL.")
]


@app.command()
def report(  # noqa: PLR0913 - the options of a command line
    report: ReportArgument,
    *,
    format: Format = "pdf",  # noqa: A002 - the option's name
    account: Account = None,
    currency: Currency = None,
    first_day: FirstDay = None,
    last_day: LastDay = None,
    timezone: Timezone = "UTC",
    to: To = None,
) -> None:
    """Build a report now, and print its URL.

    It is recorded as a job like any other. Exit code 0 when it is built, 1 when it was
    refused, 2 when the command line is wrong.
    """
    request = {
        "report": report,
        "format": format,
        "account": account,
        "currency": currency,
        "first_day": first_day,
        "last_day": last_day,
        "timezone": timezone,
    }
    given = {name: value for name, value in request.items() if value is not None}
    try:
        registry()[KIND].payload.from_wire(given)
    except ValidationError as error:
        raise UsageError(validation_message(error)) from None
    built = asyncio.run(_build(given, to))
    if built is None:
        raise typer.Exit(NOT_BUILT)
    sys.stdout.write(f"{built}\n")


async def _build(request: dict[str, Any], to: str | None) -> str | None:
    """Run the job here and now, and return the report's URL, or None."""
    async with (
        open_connections("report", pool_size=2) as opened,
        open_services(opened.settings, opened.sessions, reports_url=to) as services,
    ):
        delivery = with_payload(await _delivery(opened.sessions), request)
        waits = Waits()
        with _bar() as bar:
            show = _shown_in(bar)
            executor = Executor(
                *(opened.engine, Events(waits.note)),
                open_store=Store,
                services=services,
                progress_of=lambda _job_id: show,
            )
            return await _run(executor, delivery, waits)


async def _delivery(sessions: "async_sessionmaker[AsyncSession]") -> Delivery:
    async with sessions() as session:
        # The database's clock, since it is the one that stamps what is posted.
        now = await Store(session).reports.time()
    return Delivery(JobRef(uuid4(), KIND, "null", now), try_number=1)


class Waits:
    """What a job waits for, by the events of its runs; each thing is told once."""

    def __init__(self) -> None:
        self._why = self._told = ""

    def note(self, name: str, fields: "Mapping[str, Any]") -> None:
        """Note an event: the subscriber of the executor's."""
        cause = fields.get("blocked_by") or fields.get("sqlstate") or fields.get("trouble")
        if name.startswith("job.") and cause is not None:
            self._why = str(cause)

    def tell(self, delay: "timedelta") -> None:
        """Tell a person that the job does not go on before `delay`, and why."""
        why, self._why = self._why or "transactions in flight", ""
        if why != self._told:
            self._told = why
            tell(f"not yet: waits for {why}, tries again in {delay.total_seconds():.0f} s")


async def _run(executor: Executor, delivery: Delivery, waits: Waits) -> str | None:
    for number in range(1, TRIES_MAX + 1):
        outcome = await executor.run(registry()[KIND], replace(delivery, try_number=number))
        match outcome:
            case Finished("completed", result):
                return str(result["url"])
            case Finished(state, result):
                code, message = result.get("code", state), result.get("message", "")
                tell(f"{code}: {message}")
                return None
            case Later(delay):
                waits.tell(delay)
                await asyncio.sleep(delay.total_seconds())
            case _:
                break
    tell(f"not yet: a worker goes on with job {delivery.job.id}")
    return None


def _bar() -> Bar:
    return Bar(
        TextColumn("{task.description:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("lines"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _shown_in(bar: Bar) -> "ShowProgress":
    tasks: dict[str, Any] = {}

    def show(done: int, total: int | None = None, note: str = "") -> None:
        if note not in tasks:
            tasks[note] = bar.add_task(note, total=total)
        bar.update(tasks[note], completed=done)

    return show
