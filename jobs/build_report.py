"""Build a report from one snapshot of the books, and publish it under a name with the job's id."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, Self
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, model_validator

from . import Context, Cron, Payload, Rejected, Result, Retry, Schedule, Snooze, job
from ._fields import Currency

if TYPE_CHECKING:
    from db.bank.reports import Reports, Statement, TransferVolume, TrialBalance

TIMEOUT: Final = timedelta(minutes=10)
READ_TIMEOUT: Final = timedelta(minutes=8)
SETTLE_WAIT: Final = timedelta(seconds=1)
"""How long until transactions that could still belong to the period are looked for again."""
VOLUME_DAYS_DEFAULT: Final = 30
VOLUME_DAYS_MAX: Final = 1_100
CLOCK_AHEAD_WAIT_MAX: Final = timedelta(minutes=1)


def _known_zone(name: str) -> str:
    zone_of(name)
    return name


def zone_of(name: str) -> tzinfo:
    """Return the time zone.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "UTC":
        return UTC  # also where no time zone database is installed
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError('a time zone has an IANA name, like "Europe/Berlin"') from None


TimeZone = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_known_zone)]


Day = Annotated[date, Field(ge=date(1970, 1, 1), le=date(2999, 12, 31))]


class BuildReport(Payload):
    """Which report, over which days, in which form.

    Days are whole days of the time zone, both included. Without a first day the report begins with
    the books, a transfer_volume 30 days before its end; without a last day it ends when the job
    was accepted, as does one of today.
    """

    kind: ClassVar[str] = "build_report"

    report: Literal["account_statement", "trial_balance", "transfer_volume"]
    format: Literal["csv", "json", "xlsx", "pdf"]
    account: UUID | None = None
    """Whose statement; the other reports are about all accounts."""
    currency: Currency | None = None
    """Only this one; a statement has its account's."""
    first_day: Day | None = None
    last_day: Day | None = None
    timezone: TimeZone = "UTC"

    @model_validator(mode="after")
    def _fits_its_report(self) -> Self:
        statement = self.report == "account_statement"
        if statement and self.account is None:
            raise ValueError("an account_statement needs an account")
        if not statement and self.account is not None:
            raise ValueError(f"a {self.report} is about all accounts: leave account out")
        if statement and self.currency is not None:
            raise ValueError("an account_statement has its account's currency: leave currency out")
        if self.first_day and self.last_day and self.first_day > self.last_day:
            raise ValueError("first_day is after last_day")
        return self


@dataclass(frozen=True, slots=True)
class Period:
    """From `start`, or from the beginning, until just before `end`."""

    start: datetime | None
    end: datetime


class ReportBuilt(Result):
    """Where the report is, what its bytes are, and what it could see.

    What differs between two runs over the same books stands here and not in the file.
    """

    url: str
    sha256: str
    size_bytes: int
    lines: int
    period_start: datetime | None
    period_end: datetime
    read_at: datetime
    snapshot: str
    wal_lsn: str


def trial_balance_of_yesterday(fire_at: datetime) -> BuildReport:
    """Return the nightly report: the books as they stood when the day ended."""
    return BuildReport(
        report="trial_balance", format="pdf", last_day=fire_at.date() - timedelta(days=1)
    )


@job(
    BuildReport,
    timeout=TIMEOUT,
    retry=Retry(attempts_max=3),
    snapshot=True,
    kept_for=timedelta(days=400),
    schedules=[
        Schedule(
            "nightly_trial_balance",
            Cron("5 0 * * *"),
            trial_balance_of_yesterday,
            missed="all",
            window=timedelta(days=7),
        )
    ],
)
async def build_report(ctx: Context, request: BuildReport) -> ReportBuilt | Rejected | Snooze:
    """Read, write and publish one report, or reject what cannot be reported.

    A run after a crash makes the same bytes: the period's end is in the past and settled, so the
    books no longer change before it. Publishing the same name twice changes nothing.
    """
    books = ctx.store.reports
    period = period_of(request, accepted_at=ctx.enqueued_at)
    if period.start and period.start >= period.end:
        return Rejected("period_not_begun", "the first day had not begun when this was asked for")
    snapshot = await books.take_snapshot(
        end=period.end, timezone=request.timezone, limit=READ_TIMEOUT
    )
    if snapshot == "unknown_timezone":
        return Rejected(snapshot, "the database does not know this time zone")
    if not snapshot.settled:
        # Too early: a transaction in flight may still post into the period.
        ahead = min(period.end - snapshot.taken_at, CLOCK_AHEAD_WAIT_MAX)
        return Snooze(max(SETTLE_WAIT, ahead))
    content = await _read(books, request, period)
    if isinstance(content, Rejected):
        return content
    if refusal := ctx.services.reports.refusal(content.lines, request.format):
        return Rejected("report_too_large", refusal)
    published = await ctx.services.reports.build(
        content,
        books,
        job_id=ctx.job_id,
        format=request.format,
        timezone=zone_of(request.timezone),
        progress=ctx.progress,
    )
    return ReportBuilt(
        url=published.url,
        sha256=published.sha256,
        size_bytes=published.size_bytes,
        lines=content.lines,
        period_start=period.start,
        period_end=period.end,
        read_at=snapshot.taken_at,
        snapshot=snapshot.id,
        wal_lsn=snapshot.wal_lsn,
    )


async def _read(
    books: "Reports", request: BuildReport, period: Period
) -> "Statement | TrialBalance | TransferVolume | Rejected":
    """Return the report's totals; its lines are streamed later, from the same snapshot."""
    if request.report == "trial_balance":
        return await books.trial_balance(period.start, period.end, currency=request.currency)
    if request.report == "transfer_volume":
        midnights = midnights_of(request, period)
        if len(midnights) - 2 > VOLUME_DAYS_MAX:
            return Rejected("period_too_long", f"at most {VOLUME_DAYS_MAX} days, one line each")
        return await books.transfer_volume(midnights, currency=request.currency)
    if request.account is None:
        raise AssertionError("the payload's own rule says that a statement has an account")
    statement = await books.statement(request.account, period.start, period.end)
    return statement or Rejected("unknown_account", "there is no such account")


def period_of(request: BuildReport, *, accepted_at: datetime) -> Period:
    """Return the days asked for as instants; the end is never after the job was accepted."""
    zone = zone_of(request.timezone)
    # Redis keeps whole milliseconds, rounded down: what was posted in the same one belongs to it.
    accepted = accepted_at.astimezone(UTC) + timedelta(milliseconds=1)
    start = _midnight(request.first_day, zone) if request.first_day else None
    if request.last_day is None:
        return Period(start, accepted)
    return Period(start, min(_midnight(request.last_day + timedelta(days=1), zone), accepted))


def _midnight(day: date, zone: tzinfo) -> datetime:
    """Return when a day begins; where clocks skip midnight, that is when they skip it."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


def midnights_of(request: BuildReport, period: Period) -> list[datetime]:
    """Return where each day of the period begins, the day before it first, and where it ends."""
    zone = zone_of(request.timezone)
    # In UTC first: a day may begin later than midnight, where clocks skip it.
    last = (period.end - datetime.resolution).astimezone(zone).date()
    first = request.first_day or last - timedelta(days=VOLUME_DAYS_DEFAULT - 1)
    days = (last - first).days + 1
    starts = [_midnight(first + timedelta(days=n), zone) for n in range(-1, days)]
    return [*starts, period.end]
