"""When a job runs by itself: declared beside its handler, made by whichever worker comes first."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._payload import Payload

Missed = Literal["skip", "once", "all"]

CRON_FIELDS: Final = 5
EVERY_MIN: Final = timedelta(seconds=1)
NAME_CHARACTERS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Cron:
    """By the clock on the wall: `Cron("0 2 * * *", "Europe/Berlin")`.

    A time of day that a change of the clocks skips runs once, at the end of the gap; one that it
    repeats runs once, at the first. Where minute or hour is a step (`*/15`), it follows real time.

    Args:
        expression: five fields, minute hour day month weekday, in the language of Debian's cron.
        timezone: an IANA name.
    """

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if len(self.expression.split()) != CRON_FIELDS:
            raise ValueError(f"{self.expression!r} is not `minute hour day month weekday`")

    def zone(self) -> ZoneInfo:
        """Return the time zone.

        Raises:
            zoneinfo.ZoneInfoNotFoundError: there is no such zone.
        """
        return ZoneInfo(self.timezone)

    def __str__(self) -> str:
        return f"{self.expression} {self.timezone}"


@dataclass(frozen=True, slots=True)
class Every:
    """By the stopwatch: `Every(timedelta(minutes=5))`, counted from midnight UTC of 1970-01-01."""

    interval: timedelta

    def __post_init__(self) -> None:
        if self.interval < EVERY_MIN:
            raise ValueError(f"an interval is {EVERY_MIN.total_seconds():g} s or more")

    def zone(self) -> ZoneInfo:
        """Return UTC: an interval has no clock on a wall."""
        return ZoneInfo("UTC")

    def __str__(self) -> str:
        return f"every {self.interval}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """One row of the timetable.

    Args:
        name: stable forever; with the time it is the key of each occurrence.
        when: `Cron(…)` or `Every(…)`.
        payload: what each run gets, or a function of its time (in the schedule's own zone).
        missed: what becomes of runs that no worker was there to start. `skip`: nothing. `once`:
            the latest of them stands for all. `all`: each of them, oldest first.
        window: how old a missed run may be and still count; `all` needs one.
    """

    name: str
    when: Cron | Every
    payload: "Payload | Callable[[datetime], Payload]"
    missed: Missed = "skip"
    window: timedelta | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= NAME_CHARACTERS_MAX:
            raise ValueError(f"a schedule's name has 1 to {NAME_CHARACTERS_MAX} characters")
        if self.missed == "all" and self.window is None:
            raise ValueError(f"{self.name}: missed='all' needs a window, or a year would come back")

    def payload_at(self, fire_at: datetime) -> "Payload":
        """Return the payload of the run at `fire_at`."""
        if not callable(self.payload):
            return self.payload
        return self.payload(fire_at.astimezone(self.when.zone()))

    def key(self, fire_at: datetime) -> str:
        """Return the key of the run at `fire_at`: one job each, however it came about."""
        return f"{self.name}@{fire_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"

    def spec(self) -> str:
        """Return when it runs, as text; a change of it starts the timetable anew."""
        return str(self.when)
