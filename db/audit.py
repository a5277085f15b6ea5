"""The audit: rules that must hold, each with a query for what breaks it; all read one snapshot.

The rules of the jobs are here, the bank's in `db/bank/audit_rules.py`; `db/store.py` joins them.
What an audit shows is bounded; what it counts is not.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from db.engine import ONE_MOMENT
from db.transaction import MOVE_LIMITS, lift_limits

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

IDS_SHOWN_MAX: Final = 20
AUDIT_TIMEOUT: Final = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Breakers:
    """What breaks a rule."""

    count: int
    ids: Sequence[str] = ()
    """The first of them, at most `IDS_SHOWN_MAX`."""


Check = Callable[["AsyncSession"], Awaitable[Breakers]]


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that must hold, and the check that finds what breaks it."""

    name: str
    meaning: str
    check: Check


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one rule's check."""

    name: str
    meaning: str
    differences: int
    ids: Sequence[str]
    """The first of them, at most `IDS_SHOWN_MAX`."""


@dataclass(frozen=True, slots=True)
class Report:
    """A whole audit."""

    jobs: dict[str, int]
    """Jobs by state, and `accepted`, their number."""
    counts: dict[str, int]
    """What else was looked at, by table."""
    findings: Sequence[Finding]

    @property
    def differences(self) -> int:
        """What must be 0."""
        return sum(finding.differences for finding in self.findings)


def selected_by(query: str) -> Check:
    """Return the check whose query selects one text for each thing that breaks the rule."""
    first = text(
        f"SELECT breaker, count(*) OVER () AS total "  # noqa: S608 - queries from this code alone
        f"FROM ({query}) AS broken (breaker) LIMIT :limit"
    )

    async def check(session: "AsyncSession") -> Breakers:
        rows = (await session.execute(first, {"limit": IDS_SHOWN_MAX})).all()
        return Breakers(rows[0].total if rows else 0, [row.breaker for row in rows])

    return check


# What was retried, or added by a job that was, is queued again after its batch has fired.
FIRED_WITH_QUEUED: Final = """
    SELECT jobs.id::text FROM batches JOIN jobs ON jobs.batch_id = batches.id
    WHERE fired_at IS NOT NULL AND jobs.state = 'queued' AND jobs.enqueued_at < fired_at
      AND NOT EXISTS (
        SELECT FROM jsonb_array_elements(jobs.errors) AS entry
        WHERE entry->>'error' = 'Replayed' AND (entry->>'at')::timestamptz > fired_at)
"""

# Retention may have deleted some since; more than were counted there cannot be.
FIRED_TOO_EARLY: Final = """
    SELECT id::text FROM batches
    WHERE fired_at IS NOT NULL
      AND (SELECT count(*) FROM jobs WHERE batch_id = batches.id AND enqueued_at < fired_at)
        > (SELECT coalesce(sum(value::bigint), 0) FROM jsonb_each_text(counts))
"""

NOT_FOLLOWED_ONCE: Final = """
    SELECT id::text FROM batches
    WHERE then_kind IS NOT NULL
      AND (fired_at IS NOT NULL) <> EXISTS (
        SELECT FROM jobs WHERE jobs.id = then_id AND jobs.kind = then_kind)
"""

RECORD_RULES: Final = (
    Rule(
        "accounted",
        "accepted = completed + rejected + dead + cancelled + live",
        selected_by(
            """SELECT id::text FROM jobs
           WHERE state NOT IN ('queued', 'completed', 'rejected', 'dead', 'cancelled')
              OR (state = 'queued') <> (finished_at IS NULL)"""
        ),
    ),
    Rule(
        "payload",
        "a job's payload is the one that was accepted",
        selected_by(
            """SELECT id::text FROM jobs
           WHERE payload_check <> hashtextextended(payload::text, 0)"""
        ),
    ),
    Rule(
        "batches_over",
        "every job of a batch that has fired is final, but for those retried since",
        selected_by(FIRED_WITH_QUEUED),
    ),
    Rule(
        "batches_whole",
        "a batch fired with all of its jobs counted",
        selected_by(FIRED_TOO_EARLY),
    ),
    Rule(
        "batches_followed",
        "the job that follows a batch exists once it has fired, and not before",
        selected_by(NOT_FOLLOWED_ONCE),
    ),
    Rule(
        "follow_up_has_parent",
        "a follow-up is the effect of a job that took effect",
        # One that died may have left one (`on_dead`), before an operator replayed it.
        selected_by(
            """SELECT child.id::text FROM jobs child JOIN jobs parent ON parent.id = child.parent_id
           WHERE parent.state IN ('queued', 'rejected', 'cancelled') AND parent.slices = 0
             AND NOT parent.errors @> '[{"error": "Replayed"}]'"""
        ),
    ),
)

SET_LIMITS = text(MOVE_LIMITS)

BY_STATE = text("SELECT state, count(*) AS jobs FROM jobs GROUP BY state")


class Audit:
    """Checks rules in one session.

    Args:
        session: any; `run` takes it to be a snapshot.
        rules: what must hold.
        counted: tables whose rows are counted beside the jobs.
    """

    def __init__(
        self, session: "AsyncSession", rules: Sequence[Rule], *, counted: Sequence[str] = ()
    ) -> None:
        self._session = session
        self._rules = rules
        self._counted = counted
        self.step = "its snapshot"
        """What it is busy with, in a few words."""

    async def run(self) -> Report:
        """Check every rule; the session must have been opened as a snapshot."""
        session = self._session
        limit_ms = int(AUDIT_TIMEOUT / timedelta(milliseconds=1))
        await session.execute(SET_LIMITS, {"limit_ms": str(limit_ms)})
        await lift_limits(session, AUDIT_TIMEOUT)
        self.step = "the count of jobs"
        by_state = {row.state: row.jobs for row in await session.execute(BY_STATE)}
        jobs = {"accepted": sum(by_state.values()), **by_state}
        counts = {table: await self._count(table) for table in self._counted}
        return Report(jobs, counts, [await self._find(rule) for rule in self._rules])

    async def run_in_snapshot(self) -> Report:
        """Open a snapshot and check every rule in it; the session must not be in a transaction."""
        await self._session.connection(execution_options=ONE_MOMENT)
        return await self.run()

    async def _count(self, table: str) -> int:
        self.step = f"the count of {table}"
        query = text(f"SELECT count(*) FROM {table}")  # noqa: S608 - a name from this code
        return await self._session.scalar(query) or 0

    async def _find(self, rule: Rule) -> Finding:
        self.step = f"the rule {rule.name}"
        broken = await rule.check(self._session)
        return Finding(rule.name, rule.meaning, broken.count, broken.ids)
