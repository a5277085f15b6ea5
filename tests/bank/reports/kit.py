"""A ledger with a past, for reports: transfers posted at times of the test's choosing."""

import random
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from db.execution import JobRef
from db.store import Store
from db.transaction import MOVE_LIMITS
from jobs import registry
from jobs._reports import Reports
from jobs._services import Services
from jobs._webhooks import NO_ENDPOINTS, Webhooks
from worker.execution.delivery import Delivery, with_payload
from worker.execution.executor import Executor
from worker.monitoring.events import Events

NAMES = ("ada", "=cmd|calc", "Zoë-Ångström", "李雷", "#eval(1)", "*bold*", "donald")


@dataclass
class Books:
    """A ledger whose clock the test holds."""

    sessions: Any
    accounts: dict[str, Any] = field(default_factory=dict)
    """By currency, then by user name."""

    async def open(self, names=NAMES, currencies=("EUR", "JPY", "KWD")):
        async with self.sessions() as session, session.begin():
            store = Store(session)
            for name in names:
                user = await store.users.create(
                    username=name, email=f"{uuid.uuid4().hex}@example.com"
                )
                assert isinstance(user, uuid.UUID), user
                opened = await store.ledger.open_accounts(user, currencies)
                assert isinstance(opened, dict), opened
                for currency, account in opened.items():
                    self.accounts.setdefault(currency, {})[name] = account
            await _hold_clock(session)
        return self

    async def world(self, currency):
        async with self.sessions() as session:
            return await Store(session).ledger.world_account(currency)

    async def post(self, at, payer, payee, amount, currency="EUR"):
        async with self.sessions() as session, session.begin():
            verdict = await post_at(session, at, payer, payee, amount, currency)
            assert verdict == "posted", verdict

    async def fill(self, count, *, seed=7, start=datetime(2026, 10, 20, tzinfo=UTC)):
        """Post random transfers, an hour apart on average, over the end of summer time."""
        luck = random.Random(seed)
        worlds = {currency: await self.world(currency) for currency in self.accounts}
        at = start
        async with self.sessions() as session, session.begin():
            for _ in range(count):
                at += timedelta(seconds=luck.expovariate(1 / 3600))
                currency = luck.choices(["EUR", "JPY", "KWD"], [8, 2, 1])[0]
                payer, payee = luck.sample(list(self.accounts[currency].values()), 2)
                kind = luck.random()
                if kind < 0.4:
                    payer = worlds[currency]
                elif kind < 0.5:
                    payee = worlds[currency]
                amount = int(luck.lognormvariate(9, 1.2)) + 1
                await post_at(session, at, payer, payee, amount, currency)
        return at

    async def fill_account(self, account, count, *, currency="EUR"):
        """Give one account `count` deposits at once, a second apart until now.

        Not through `post_transfer`: that many updates of two rows in one transaction take minutes.
        """
        async with self.sessions() as session, session.begin():
            await session.execute(text("SET LOCAL statement_timeout = '10min'"))
            await session.execute(text(MOVE_LIMITS), {"limit_ms": "0"})
            await session.execute(
                FILL_ACCOUNT, {"account": account, "count": count, "currency": currency}
            )

    async def rows(self):
        """Every entry as a plain dictionary, for an oracle in Python."""
        async with self.sessions() as session:
            found = await session.execute(
                text("""SELECT e.*, a.currency, a.code FROM entries e
                        JOIN accounts a ON a.id = e.account_id ORDER BY account_id, version""")
            )
            return [dict(row._mapping) for row in found]


FILL_ACCOUNT = text("""
    WITH made AS MATERIALIZED (
        SELECT n, new_id() AS id, 100 + n % 97 AS amount,
               sum(100 + n % 97) OVER (ORDER BY n) AS total,
               clock_timestamp() - (:count - n) * interval '1 second' AS at
        FROM generate_series(1, CAST(:count AS bigint)) AS n
    ), side AS (
        SELECT id, version, balance, CASE WHEN user_id IS NULL THEN -1 ELSE 1 END AS sign
        FROM accounts WHERE id IN (:account, world_account_id(:currency)) FOR NO KEY UPDATE
    ), posted AS (
        INSERT INTO transfers (id, from_account, to_account, amount, currency, posted_at)
        SELECT id, world_account_id(:currency), :account, amount, :currency, at FROM made
    ), entered AS (
        INSERT INTO entries (account_id, version, transfer_id, amount, balance_after, posted_at)
        SELECT side.id, side.version + n, made.id, sign * amount, side.balance + sign * total, at
        FROM made, side ORDER BY side.id, n
    )
    UPDATE accounts SET version = accounts.version + :count,
        balance = accounts.balance + side.sign * (SELECT max(total) FROM made)
    FROM side WHERE side.id = accounts.id
""")


async def _hold_clock(session):
    """Make `post_at`: `post_transfer` but for its clock."""
    source = await session.scalar(text("SELECT pg_get_functiondef('post_transfer'::regproc)"))
    connection = await (await session.connection()).get_raw_connection()
    await connection.driver_connection.execute(
        source.replace("post_transfer(", "post_at(").replace(
            "clock_timestamp()", "current_setting('test.now')::timestamptz"
        )
    )


async def post_at(session, at, payer, payee, amount, currency):
    await session.execute(
        text("SELECT set_config('test.now', :now, true)"), {"now": at.isoformat()}
    )
    return await session.scalar(
        text("SELECT verdict FROM post_at(:id, :payer, :payee, :amount, :currency)"),
        {
            "id": uuid.uuid4(),
            "payer": payer,
            "payee": payee,
            "amount": amount,
            "currency": currency,
        },
    )


@dataclass
class Desk:
    """Builds reports as a worker does."""

    sessions: Any
    directory: Path
    told: list[Any] = field(default_factory=list)
    progress: list[Any] = field(default_factory=list)
    """What the reports said of their progress: done, total, stage."""
    on_progress: Any = None
    """Called with each stage that is reported."""

    def __post_init__(self):
        self.executor = Executor(
            self.sessions.kw["bind"],
            Events(lambda name, fields: self.told.append((name, fields))),
            open_store=Store,
            services=Services(
                reports=Reports(self.directory.as_uri()),
                webhooks=Webhooks(NO_ENDPOINTS, private_allowed=False),
            ),
            progress_of=lambda _job_id: self.note_progress,
            jitter=lambda: 0.5,
        )

    def note_progress(self, done, total=None, note=""):
        self.progress.append((done, total, note))
        if self.on_progress:
            self.on_progress(note)

    def delivery(self, *, job_id=None, try_number=1, accepted_at=None, **wish):
        delivered = JobRef(
            job_id or uuid.uuid4(), "build_report", "null", accepted_at or datetime.now(UTC)
        )
        return with_payload(Delivery(delivered, try_number), wish)

    async def build(self, **wish):
        return await self.executor.run(registry()["build_report"], self.delivery(**wish))

    async def built(self, **wish):
        """The finished file."""
        outcome = await self.build(**wish)
        assert getattr(outcome, "state", None) == "completed", (outcome, self.told[-1])
        return path_of(outcome.result["url"])

    def files(self):
        """What a reader of finished reports can see."""
        return sorted(
            path
            for path in self.directory.rglob("*")
            if path.is_file() and ".unfinished" not in path.parts
        )


def path_of(url):
    assert url.startswith("file://")
    return Path(url.removeprefix("file://"))
