"""Forget finished jobs of the kinds that may be forgotten, once they are old enough."""

from datetime import timedelta
from typing import ClassVar

from . import Context, Cron, Payload, Result, Schedule, job
from ._registry import registry

ROWS_MAX = 20_000
"""Jobs deleted by one run; what is left waits for the next, an hour later."""


class PurgeRecord(Payload):
    """Nothing to say: each job's own policy says how long it is kept."""

    kind: ClassVar[str] = "purge_record"


class RecordPurged(Result):
    """How many jobs of each kind were deleted."""

    deleted: dict[str, int]


@job(
    PurgeRecord,
    timeout=timedelta(seconds=25),
    kept_for=timedelta(days=30),
    schedules=[Schedule("purge_record", Cron("17 * * * *"), PurgeRecord())],
)
async def purge_record(ctx: Context, request: PurgeRecord) -> RecordPurged:
    """Delete final jobs whose kind declares `kept_for` and that are older; others stay forever."""
    del request
    kept_for = {
        kind: one.policy.kept_for
        for kind, one in registry().items()
        if one.policy.kept_for is not None
    }
    return RecordPurged(deleted=await ctx.store.retention.purge(kept_for, ROWS_MAX))
