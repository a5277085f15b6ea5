"""The audit: every rule of the books and the record, as a query that finds who breaks it.

All of them read one snapshot. What they find is bounded; what they count is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from db.engine import ONE_MOMENT

if TYPE_CHECKING:
    from sqlalchemy import TextClause
    from sqlalchemy.ext.asyncio import AsyncSession

IDS_SHOWN_MAX: Final = 20
AUDIT_TIMEOUT: Final = "30min"


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that must hold; `breakers` selects a text that names each thing that breaks it."""

    name: str
    meaning: str
    breakers: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule's check found."""

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
    transfers: int
    findings: Sequence[Finding]

    @property
    def differences(self) -> int:
        """What must be 0."""
        return sum(finding.differences for finding in self.findings)


RULES: Final = (
    Rule(
        "accounted",
        "accepted = completed + rejected + dead + cancelled + live",
        """SELECT id::text FROM jobs
           WHERE state NOT IN ('queued', 'completed', 'rejected', 'dead', 'cancelled')
              OR (state = 'queued') <> (finished_at IS NULL)""",
    ),
    Rule(
        "payload",
        "the payload is the one that was accepted",
        "SELECT id::text FROM jobs WHERE payload_hash <> payload_hash(payload)",
    ),
    Rule(
        "zero_sum",
        "the balances of each currency sum to 0",
        "SELECT currency FROM accounts GROUP BY currency HAVING sum(balance) <> 0",
    ),
    Rule(
        "balance",
        "a balance is its last entry, and the sum of its entries",
        """SELECT a.id::text FROM accounts a
           LEFT JOIN (SELECT account_id, sum(amount) AS total, count(*) AS entries
                      FROM entries GROUP BY account_id) e ON e.account_id = a.id
           LEFT JOIN entries last ON last.account_id = a.id AND last.version = a.version
           WHERE a.balance <> coalesce(e.total, 0) OR a.version <> coalesce(e.entries, 0)
              OR a.balance <> coalesce(last.balance_after, 0)""",
    ),
    Rule(
        "chain",
        "each account's entries follow each other without a gap",
        """SELECT account_id::text || ' version ' || version FROM (
             SELECT account_id, version, balance_after - amount AS before,
                    lag(balance_after, 1, 0::bigint) OVER chain AS last,
                    row_number() OVER chain AS position
             FROM entries WINDOW chain AS (PARTITION BY account_id ORDER BY version)) e
           WHERE before <> last OR version <> position""",
    ),
    Rule(
        "double_entry",
        "a transfer has two entries, on its two accounts, that cancel out",
        """SELECT t.id::text FROM transfers t
           LEFT JOIN entries e ON e.transfer_id = t.id
           GROUP BY t.id
           HAVING count(e.*) <> 2
              OR count(*) FILTER (
                   WHERE e.account_id = t.from_account AND e.amount = -t.amount) <> 1
              OR count(*) FILTER (
                   WHERE e.account_id = t.to_account AND e.amount = t.amount) <> 1""",
    ),
    Rule(
        "currency",
        "a transfer and its accounts are of one currency",
        """SELECT t.id::text FROM transfers t
           JOIN accounts a ON a.id IN (t.from_account, t.to_account)
           WHERE a.currency <> t.currency""",
    ),
    Rule(
        "floor",
        "no entry ever left its account below the floor",
        """SELECT e.account_id::text || ' version ' || e.version
           FROM entries e JOIN accounts a ON a.id = e.account_id
           WHERE e.balance_after < a.floor""",
    ),
    Rule(
        "transfer_has_job",
        "a transfer is the effect of a completed job",
        """SELECT t.id::text FROM transfers t
           LEFT JOIN jobs j ON j.id = t.id AND j.state = 'completed' AND j.kind = 'transfer_funds'
           WHERE j.id IS NULL""",
    ),
    Rule(
        "job_has_transfer",
        "a completed transfer job has its transfer",
        """SELECT j.id::text FROM jobs j LEFT JOIN transfers t ON t.id = j.id
           WHERE j.kind = 'transfer_funds' AND j.state = 'completed' AND t.id IS NULL""",
    ),
    Rule(
        "job_has_user",
        "a completed user job has its user and accounts",
        """SELECT j.id::text FROM jobs j
           LEFT JOIN users u ON u.id = (j.result->>'user_id')::uuid
           WHERE j.kind = 'create_user' AND j.state = 'completed' AND (
             u.id IS NULL OR (SELECT count(*) FROM accounts a WHERE a.user_id = u.id)
               < (SELECT count(*) FROM jsonb_object_keys(j.result->'accounts')))""",
    ),
)

ORDER: Final = Rule(
    "order",
    "the accounts' histories fit into one order of transfers",
    # Where time strictly grows along every account, time itself is that order.
    """SELECT 1 FROM (
         SELECT posted_at, lag(posted_at) OVER (PARTITION BY account_id ORDER BY version) AS last
         FROM entries) e
       WHERE posted_at <= last LIMIT 1""",
)

FOLLOWS = text("""
    SELECT transfer_id::text, lag(transfer_id) OVER (PARTITION BY account_id ORDER BY version)::text
    FROM entries
""")

SET_LIMITS = text("""
    SELECT set_config('statement_timeout', :limit, true),
           set_config('transaction_timeout', :limit, true)
""")

BY_STATE = text("SELECT state, count(*) AS jobs FROM jobs GROUP BY state")


class Audit:
    """The audit as one session sees it; the session must have been opened as a snapshot."""

    def __init__(self, session: "AsyncSession") -> None:
        self._session = session

    async def run(self) -> Report:
        """Check every rule."""
        session = self._session
        await session.execute(SET_LIMITS, {"limit": AUDIT_TIMEOUT})
        by_state = {row.state: row.jobs for row in await session.execute(BY_STATE)}
        transfers = await session.scalar(text("SELECT count(*) FROM transfers"))
        findings = [await _check(session, rule) for rule in RULES]
        findings.append(await _check_order(session))
        jobs = {"accepted": sum(by_state.values()), **by_state}
        return Report(jobs, transfers or 0, findings)


async def audit(session: "AsyncSession") -> Report:
    """Open a snapshot and check every rule in it. The session must be fresh."""
    await session.connection(execution_options=ONE_MOMENT)
    return await Audit(session).run()


async def _check(session: "AsyncSession", rule: Rule) -> Finding:
    rows = (await session.execute(_first_of(rule.breakers), {"limit": IDS_SHOWN_MAX})).all()
    total = rows[0].total if rows else 0
    return Finding(rule.name, rule.meaning, total, [row.breaker for row in rows])


def _first_of(breakers: str) -> "TextClause":
    return text(
        f"SELECT breaker, count(*) OVER () AS total "  # noqa: S608 - the rules above, nothing else
        f"FROM ({breakers}) AS broken (breaker) LIMIT :limit"
    )


async def _check_order(session: "AsyncSession") -> Finding:
    """Prove that the histories of all accounts are parts of one history: no cycle."""
    suspicious = await session.scalar(text(ORDER.breakers))
    if suspicious is None:
        return Finding(ORDER.name, ORDER.meaning, 0, [])
    graph: TopologicalSorter[str] = TopologicalSorter()
    async for transfer, before in await session.stream(FOLLOWS):
        graph.add(transfer, *([before] if before else []))
    try:
        graph.prepare()
    except CycleError as error:
        cycle = list(dict.fromkeys(error.args[1]))
        return Finding(ORDER.name, ORDER.meaning, len(cycle), cycle[:IDS_SHOWN_MAX])
    return Finding(ORDER.name, ORDER.meaning, 0, [])
