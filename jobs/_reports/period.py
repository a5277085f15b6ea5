"""A report's period in words and in figures."""

from datetime import UTC, date, datetime, tzinfo

from jobs._reports.document import Figure


def period_facts(start: datetime | None, end: datetime, timezone: tzinfo) -> tuple[Figure, ...]:
    """Return the figures that say which time a report is about."""
    return (
        Figure("period", "Period", in_words(start, end, timezone)),
        Figure("period_start", "From", _local(start, timezone), "time"),
        Figure("period_end", "Until before", _local(end, timezone), "time"),
        Figure("last_day", "Last day", last_day(end, timezone).isoformat(), "day"),
        Figure("timezone", "Time zone", str(timezone)),
    )


def last_day(end: datetime, timezone: tzinfo) -> date:
    """Return the last day that a period has a moment of."""
    # In UTC first: a day may begin later than midnight, where clocks skip it.
    return (end.astimezone(UTC) - datetime.resolution).astimezone(timezone).date()


def in_words(start: datetime | None, end: datetime, timezone: tzinfo) -> str:
    """Return "1 November 2026 to 30 November 2026", the second too where the day is not over."""
    last = last_day(end, timezone)
    ends = end.astimezone(timezone)
    through = f"{_day(last)}, {ends:%H:%M:%S}" if ends.date() == last else _day(last)
    if start is None:
        return f"Until {through}"
    first = start.astimezone(timezone).date()
    return through if first == last else f"{_day(first)} to {through}"


def _day(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


def _local(moment: datetime | None, timezone: tzinfo) -> str | None:
    return None if moment is None else moment.astimezone(timezone).isoformat()
