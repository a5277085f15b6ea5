"""Wind a clock: a job whose payload is the only one of its kind for an hour."""

from datetime import timedelta
from typing import ClassVar

from . import Context, Payload, job


class WindClock(Payload):
    """Which clock."""

    kind: ClassVar[str] = "wind_clock"

    room: str


@job(WindClock, unique_for=timedelta(hours=1))
async def wind_clock(ctx: Context, request: WindClock) -> None:
    """Wind nothing: its tests are about the way to here."""
    del ctx, request
