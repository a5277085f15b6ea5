"""Audit the books: every rule of the ledger and of the jobs, in one snapshot."""

from datetime import timedelta
from typing import ClassVar

from . import Context, Cron, Payload, Result, Retry, Schedule, job


class AuditBooks(Payload):
    """Nothing to say: an audit checks everything."""

    kind: ClassVar[str] = "audit_books"


class BooksAudited(Result):
    """What was looked at; a job that completes has found no difference."""

    jobs: int
    transfers: int
    rules: int


class BooksBrokenError(Exception):
    """A rule of the books is broken; the message names the rules, and `audit` lists the ids."""


@job(
    AuditBooks,
    timeout=timedelta(minutes=10),
    retry=Retry(attempts_max=2),
    snapshot=True,
    kept_for=timedelta(days=400),
    schedules=[
        Schedule(
            "nightly_audit",
            Cron("30 2 * * *"),
            AuditBooks(),
            missed="once",
            window=timedelta(days=2),
        )
    ],
)
async def audit_books(ctx: Context, request: AuditBooks) -> BooksAudited:
    """Check every rule; a difference is a failure and ends dead, so that somebody looks."""
    del request
    report = await ctx.store.audit.run()
    broken = [finding.name for finding in report.findings if finding.differences]
    if broken:
        raise BooksBrokenError(f"{report.differences} differences in: {', '.join(broken)}")
    return BooksAudited(
        jobs=report.jobs["accepted"],
        transfers=report.counts["transfers"],
        rules=len(report.findings),
    )
