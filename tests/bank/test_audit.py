"""One fault of each kind is planted in books that were right, and the audit must name it."""

import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text

from db.audit import Audit
from db.bank.audit_rules import COUNTED, LEDGER_RULES
from db.engine import ONE_MOMENT, create_engine, create_sessions
from db.store import RULES, Store
from tests.bank.kit import open_account

# A superuser can switch off what protects the books, and so could a bug in a migration.
UNPROTECTED = [
    "SET session_replication_role = replica",
    "ALTER TABLE accounts DROP CONSTRAINT IF EXISTS accounts_floor_check",
    "ALTER TABLE entries DROP CONSTRAINT IF EXISTS entries_transfer_id_account_id_key",
]


@dataclass
class Books:
    """Two accounts, and three transfers by completed jobs."""

    sessions: Any
    payer: uuid.UUID
    payee: uuid.UUID
    transfers: list

    @asynccontextmanager
    async def tampering(self):
        async with self.sessions() as session, session.begin():
            for statement in UNPROTECTED:
                await session.execute(text(statement))
            yield session
            await session.execute(text("SET session_replication_role = origin"))

    async def plant(self, statement, **parameters):
        async with self.tampering() as session:
            await session.execute(text(statement), parameters)

    async def found(self):
        """Return what the audit finds: the rules that are broken, with ids."""
        async with self.sessions() as session:
            report = await Store(session).audit.run_in_snapshot()
        return {one.name: list(one.ids) for one in report.findings if one.differences}


TRANSFER_JOB = text("""
    INSERT INTO jobs (id, kind, payload, state, finished_at)
    VALUES (:id, 'transfer_funds', '{}', 'completed', clock_timestamp())
""")
JOB_OF_NOBODY = text("""
    INSERT INTO jobs (id, kind, payload, state, result, finished_at)
    VALUES (:id, 'create_user', '{}', 'completed',
            jsonb_build_object('user_id', new_id(), 'accounts', '{}'::jsonb), clock_timestamp())
""")
POST = text("SELECT verdict FROM post_transfer(:id, :payer, :payee, 100, 'EUR')")
DEPOSITS = text("""
    INSERT INTO jobs (id, kind, payload, state, finished_at)
    SELECT id, 'transfer_funds', '{}', 'completed', clock_timestamp()
    FROM transfers
""")


@pytest.fixture
async def books(new_database_url):
    engine = create_engine(new_database_url, pool_size=2, application_name="teller-tests")
    sessions = create_sessions(engine)
    payer = await open_account(sessions, balance="1000.00")
    payee = await open_account(sessions, balance="1.00")
    async with sessions() as session, session.begin():
        await session.execute(DEPOSITS)
    transfers = [await post(sessions, payer, payee) for _ in range(3)]
    yield Books(sessions, payer, payee, transfers)
    await engine.dispose()


async def post(sessions, payer, payee, *, with_job=True):
    made = uuid.uuid4()
    async with sessions() as session, session.begin():
        if with_job:
            await session.execute(TRANSFER_JOB, {"id": made})
        await session.execute(POST, {"id": made, "payer": payer, "payee": payee})
    return made


async def test_books_that_are_right_have_no_difference(books):
    assert await books.found() == {}


async def test_money_from_nowhere_is_found(books):
    await books.plant("UPDATE accounts SET balance = balance + 1 WHERE id = :id", id=books.payee)

    found = await books.found()
    assert found["zero_sum"] == ["EUR"]
    assert found["balance"] == [str(books.payee)]


async def test_accounts_of_a_currency_that_count_differently_are_found(books):
    await books.plant("UPDATE accounts SET exponent = 3 WHERE id = :id", id=books.payee)

    assert await books.found() == {"exponent": ["EUR"]}


async def test_an_update_that_was_lost_is_found(books):
    """Two transfers read the same balance, and the second wrote over the first."""
    await books.plant(
        "UPDATE accounts SET balance = balance - 100 * CASE WHEN id = :payer THEN -1 ELSE 1 END, "
        "version = version - 1 WHERE id IN (:payer, :payee)",
        payer=books.payer,
        payee=books.payee,
    )

    found = await books.found()
    assert sorted(found["balance"]) == sorted([str(books.payer), str(books.payee)])
    assert "zero_sum" not in found


async def test_a_gap_in_an_account_s_history_is_found(books):
    await books.plant(
        "UPDATE entries SET version = version + 5 WHERE account_id = :id AND version = "
        "(SELECT max(version) FROM entries WHERE account_id = :id)",
        id=books.payer,
    )

    found = await books.found()
    assert found["chain"] == [f"{books.payer} version 9"]


async def test_an_entry_that_does_not_follow_the_one_before_is_found(books):
    await books.plant(
        "UPDATE entries SET balance_after = balance_after + 7 "
        "WHERE account_id = :id AND version = 2",
        id=books.payer,
    )

    assert f"{books.payer} version 3" in (await books.found())["chain"]


async def test_half_a_transfer_is_found(books):
    transfer = books.transfers[-1]
    await books.plant(
        "DELETE FROM entries WHERE transfer_id = :id AND account_id = :account",
        id=transfer,
        account=books.payee,
    )

    assert (await books.found())["double_entry"] == [str(transfer)]


async def test_a_transfer_whose_entries_do_not_cancel_out_is_found(books):
    transfer = books.transfers[-1]
    await books.plant(
        "UPDATE entries SET amount = amount + 1 WHERE transfer_id = :id AND amount > 0",
        id=transfer,
    )

    assert (await books.found())["double_entry"] == [str(transfer)]


async def test_a_transfer_between_currencies_is_found(books):
    transfer = books.transfers[0]
    await books.plant("UPDATE transfers SET currency = 'USD' WHERE id = :id", id=transfer)

    assert set((await books.found())["currency"]) == {str(transfer)}


async def test_an_overdraft_in_the_past_is_found(books):
    await books.plant(
        "UPDATE entries SET balance_after = -1 WHERE account_id = :id AND version = 2",
        id=books.payer,
    )

    assert (await books.found())["floor"] == [f"{books.payer} version 2"]


async def test_a_transfer_without_a_job_is_found(books):
    made = await post(books.sessions, books.payer, books.payee, with_job=False)

    assert await books.found() == {"transfer_has_job": [str(made)]}


async def test_a_transfer_of_a_job_that_did_not_complete_is_found(books):
    job = books.transfers[0]
    await books.plant("UPDATE jobs SET state = 'rejected' WHERE id = :id", id=job)

    assert await books.found() == {"transfer_has_job": [str(job)]}


async def test_a_completed_job_without_its_transfer_is_found(books):
    made = uuid.uuid4()
    async with books.sessions() as session, session.begin():
        await session.execute(TRANSFER_JOB, {"id": made})

    assert await books.found() == {"job_has_transfer": [str(made)]}


async def test_a_completed_job_without_its_user_is_found(books):
    made = uuid.uuid4()
    async with books.sessions() as session, session.begin():
        await session.execute(JOB_OF_NOBODY, {"id": made})

    assert await books.found() == {"job_has_user": [str(made)]}


async def test_two_histories_that_contradict_each_other_are_found(books):
    """The payer saw the first transfer before the second, the payee the other way round."""
    first, second = books.transfers[:2]
    await books.plant(
        "UPDATE entries SET transfer_id = CASE WHEN transfer_id = :first THEN CAST(:second AS uuid)"
        " ELSE :first END WHERE account_id = :payee AND transfer_id IN (:first, :second)",
        first=first,
        second=second,
        payee=books.payee,
    )

    assert (await books.found())["order"] == [str(first)]


async def test_numbers_that_follow_no_order_of_the_accounts_are_found(books):
    """As they would if a sequence was not carried along to another server."""
    await books.plant("ALTER TABLE transfers ALTER number DROP IDENTITY")
    await books.plant("UPDATE transfers SET number = -number")

    assert set(map(str, books.transfers)) < set((await books.found())["order"])


class CountingSession:
    """A session that counts the rows it is given."""

    def __init__(self, session):
        self._session = session
        self.rows = 0

    def __getattr__(self, name):
        return getattr(self._session, name)

    async def execute(self, *args, **options):
        frozen = (await self._session.execute(*args, **options)).freeze()
        self.rows += len(frozen.data)
        return frozen()

    async def scalar(self, *args, **options):
        self.rows += 1
        return await self._session.scalar(*args, **options)

    async def stream(self, *args, **options):
        return self._counted(await self._session.stream(*args, **options))

    async def _counted(self, rows):
        async for row in rows:
            self.rows += 1
            yield row


async def rows_of_an_audit(books):
    async with books.sessions() as session:
        counting: Any = CountingSession(session)
        await session.connection(execution_options=ONE_MOMENT)
        report = await Audit(counting, RULES, counted=COUNTED).run()
    return counting.rows, report.differences


async def test_an_audit_s_memory_does_not_grow_with_the_ledger_not_even_when_clocks_step(books):
    """The clock is set back by an hour between two transfers; every account knows both times."""
    before, _ = await rows_of_an_audit(books)
    async with books.sessions() as session, session.begin():
        for _ in range(200):
            made = uuid.uuid4()
            await session.execute(TRANSFER_JOB, {"id": made})
            await session.execute(POST, {"id": made, "payer": books.payer, "payee": books.payee})
    await books.plant(
        "UPDATE entries SET posted_at = posted_at - interval '1 h' WHERE version > 99"
    )

    assert await rows_of_an_audit(books) == (before, 0)


async def test_every_rule_has_a_planted_fault():
    tests = {name for name in globals() if name.startswith("test_")}

    assert len(tests) > len(LEDGER_RULES)
