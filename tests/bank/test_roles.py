"""deploy/roles-bank.sql: the worker moves money, and cannot edit the books."""

import json

import asyncpg
import pytest

from db.engine import create_engine, create_sessions
from tests.bank.kit import open_account
from tests.roles import refused, separate_roles
from tests.worker.loop.kit import eventually
from tests.worker.running import running_worker

DEADLINE_S = 60
ACCEPT = "SELECT enqueue_job($1, $2::jsonb, $3)"
ALL_ENDED = "SELECT every(state <> 'queued') FROM jobs"
STATES = "SELECT kind, state, errors::text FROM jobs ORDER BY kind"

NOT_THE_WORKERS = [
    "UPDATE entries SET amount = amount",
    "DELETE FROM transfers",
    "UPDATE users SET email = email",
    "DELETE FROM accounts",
    "ALTER TABLE entries DISABLE TRIGGER ALL",
]


async def test_every_job_of_the_bank_runs_with_the_workers_rights(
    new_database_url, redis, redis_url, tmp_path, monkeypatch
):
    monkeypatch.setenv("TELLER_REPORTS_URL", tmp_path.as_uri())
    engine = create_engine(new_database_url, pool_size=2, application_name="teller-tests")
    sessions = create_sessions(engine)
    payer = await open_account(sessions, balance="10")
    payee = await open_account(sessions)
    await engine.dispose()
    jobs = {
        "transfer_funds": {
            "from_account": str(payer),
            "to_account": str(payee),
            "amount": "1.00",
            "currency": "EUR",
        },
        "create_user": {"username": "ada", "email": "ada@example.com", "currencies": ["EUR"]},
        "build_report": {"report": "trial_balance", "format": "csv"},
        "purge_record": {},
    }
    async with separate_roles(new_database_url, "roles.sql", "roles-bank.sql") as roles:
        caller = await asyncpg.connect(roles.caller)
        async with running_worker(roles.worker, redis_url):
            for kind, payload in jobs.items():
                await caller.execute(ACCEPT, kind, json.dumps(payload), kind)
            await eventually(lambda: caller.fetchval(ALL_ENDED), deadline_s=DEADLINE_S)
        ended = {row[0]: (row[1], row[2]) for row in await caller.fetch(STATES)}
        await caller.close()
    assert ended == dict.fromkeys(jobs, ("completed", "[]"))


@pytest.mark.parametrize("statement", NOT_THE_WORKERS)
async def test_the_books_are_not_the_workers_to_edit(new_database_url, statement):
    async with separate_roles(new_database_url, "roles.sql", "roles-bank.sql") as roles:
        assert await refused(roles.worker, statement)
