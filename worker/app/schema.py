"""What the database must have before a worker runs on it: an answer, and this code's schema."""

import asyncio
import random
from itertools import count
from typing import TYPE_CHECKING, Final

from db.connector import UnsuitableDatabaseError
from db.engine import PUBLIC
from db.errors import TRANSIENT, diagnose
from db.kinds import KindTerms
from db.migrate import MigrationBusyError, SchemaOutdatedError, migrate, require_current
from db.transaction import limit_fault
from jobs import registry
from worker.errors import StartupError
from worker.execution.retry import full_jitter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

    from jobs import Job
    from worker.monitoring.events import Events

WAIT_BASE_S: Final = 0.2
WAIT_MAX_S: Final = 5.0
"""Between two looks for a database that is away when the worker starts."""


async def wait_for_database(check: "Callable[[], Awaitable[None]]", events: "Events") -> None:
    """Repeat a check of the database until it succeeds, however long PostgreSQL is away.

    Raises:
        Exception: whatever the check raises that waiting cannot help: a wrong password, an
            outdated schema.
    """
    for tries in count(1):
        try:
            return await check()
        except Exception as error:
            diagnosis = diagnose(error)
            if diagnosis.trouble not in TRANSIENT:
                raise
            wait_s = full_jitter(WAIT_BASE_S, WAIT_MAX_S, tries, random.random())  # noqa: S311 - jitter
            events.emit(
                "worker.waits_for_database", error=type(error).__name__, sqlstate=diagnosis.sqlstate
            )
            await asyncio.sleep(wait_s)
    raise AssertionError("unreachable: the count has no end")


async def check_schema(engine: "AsyncEngine", schema: str) -> None:
    """Check that the schema is the one this code knows.

    Raises:
        StartupError: it is not, or the database is no place for it.
    """
    try:
        await require_current(engine, schema)
    except (SchemaOutdatedError, UnsuitableDatabaseError) as error:
        raise StartupError(str(error)) from error


def check_timeouts(kinds: "Mapping[str, Job]") -> None:
    """Check that the database's limits can follow every job's timeout.

    Raises:
        StartupError: one cannot be; the message names the job.
    """
    for kind, job in kinds.items():
        fault = limit_fault(job.policy.timeout)
        if fault is not None:
            raise StartupError(f"job {kind}: timeout={job.policy.timeout}: {fault}")


def terms_of(job: "Job") -> KindTerms:
    """Return on what terms the database accepts a job's kind, whichever door it comes through."""
    return KindTerms(
        payload_schema=job.payload.model_json_schema(),
        queue=job.policy.queue,
        unique_for=job.policy.unique_for,
        replaces=job.policy.replace,
        expires_after=job.policy.expires_after,
    )


async def migrate_database(
    engine: "AsyncEngine", schema: str = PUBLIC, jobs: "Mapping[str, Job] | None" = None
) -> str:
    """Run missing migrations, register kinds of job, and return the revision.

    Args:
        engine: where to.
        schema: where the tables are.
        jobs: by kind; None: all that are registered.

    Raises:
        StartupError: the database is unsuitable, or another process migrates it.
    """
    declared = registry() if jobs is None else jobs
    kinds = {kind: terms_of(job) for kind, job in declared.items()}
    try:
        return await migrate(engine, kinds, schema)
    except (UnsuitableDatabaseError, MigrationBusyError) as error:
        raise StartupError(str(error)) from error
