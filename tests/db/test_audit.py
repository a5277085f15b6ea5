"""A fault of each kind is planted among jobs that were right, and the audit must name it."""

import uuid
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from db.audit import IDS_SHOWN_MAX, RECORD_RULES, Audit
from db.engine import create_engine, create_sessions
from worker.cli import audit as command

# What a bug in a migration could do: without the alarms, the faults can be planted.
UNPROTECTED = [
    "ALTER TABLE jobs DROP CONSTRAINT jobs_state_check",
    "ALTER TABLE jobs DROP CONSTRAINT jobs_finished_check",
]

COMPLETED_JOBS = text("""
    INSERT INTO jobs (kind, payload, state, finished_at)
    SELECT 'send_letter', '{}', 'completed', clock_timestamp()
    FROM generate_series(1, :count)
    RETURNING id
""")

WITH_A_NUMBER = text("""
    INSERT INTO jobs (kind, payload, state, finished_at)
    VALUES ('send_letter', '{"ratio": 1.50}', 'completed', clock_timestamp())
    RETURNING id
""")

ENDLESS_JOB = """
    INSERT INTO jobs (kind, payload, state) VALUES ('send_letter', '{}', 'completed') RETURNING id
"""


@dataclass
class Jobs:
    """Three completed jobs, whose rows can be spoiled."""

    sessions: Any
    ids: list[uuid.UUID]

    async def spoil(self, change, job_id):
        async with self.sessions() as session, session.begin():
            await session.execute(text(f"UPDATE jobs SET {change} WHERE id = :id"), {"id": job_id})

    async def audit(self):
        async with self.sessions() as session:
            return await Audit(session, RECORD_RULES).run_in_snapshot()

    async def found(self):
        """Return what the audit finds: the rules that are broken, with ids."""
        report = await self.audit()
        return {one.name: list(one.ids) for one in report.findings if one.differences}


@pytest.fixture
async def jobs(new_database_url):
    engine = create_engine(new_database_url, pool_size=2, application_name="teller-tests")
    sessions = create_sessions(engine)
    async with sessions() as session, session.begin():
        for statement in UNPROTECTED:
            await session.execute(text(statement))
        ids = list((await session.execute(COMPLETED_JOBS, {"count": 3})).scalars())
    yield Jobs(sessions, ids)
    await engine.dispose()


async def test_jobs_that_are_right_have_no_difference(jobs):
    report = await jobs.audit()

    assert report.differences == 0
    assert report.jobs == {"accepted": 3, "completed": 3}


async def test_a_job_in_no_known_state_is_found(jobs):
    await jobs.spoil("state = 'lost'", jobs.ids[0])

    assert await jobs.found() == {"accounted": [str(jobs.ids[0])]}


async def test_a_final_job_without_an_end_is_found(jobs):
    await jobs.spoil("finished_at = NULL", jobs.ids[1])

    assert await jobs.found() == {"accounted": [str(jobs.ids[1])]}


async def test_a_payload_that_changed_since_it_was_accepted_is_found(jobs):
    await jobs.spoil('payload = \'{"address": "elsewhere"}\'', jobs.ids[1])

    assert await jobs.found() == {"payload": [str(jobs.ids[1])]}


async def test_a_number_that_is_only_written_differently_since_is_found(jobs):
    async with jobs.sessions() as session, session.begin():
        job_id = await session.scalar(WITH_A_NUMBER)
    assert await jobs.found() == {}

    await jobs.spoil("payload = '{\"ratio\": 1.5}'", job_id)

    assert await jobs.found() == {"payload": [str(job_id)]}


async def test_what_a_dump_says_of_a_payload_is_kept_when_it_is_restored(jobs):
    """A row that is copied with its own check, as `pg_restore` does, hides no change."""
    await jobs.spoil('payload = \'{"address": "elsewhere"}\'', jobs.ids[1])
    async with jobs.sessions() as session, session.begin():
        await session.execute(text("CREATE TEMPORARY TABLE dump ON COMMIT DROP AS TABLE jobs"))
        await session.execute(text("DELETE FROM jobs"))
        await session.execute(text("INSERT INTO jobs SELECT * FROM dump"))

    assert await jobs.found() == {"payload": [str(jobs.ids[1])]}


async def test_what_is_shown_is_bounded_and_what_is_counted_is_not(jobs):
    many = IDS_SHOWN_MAX + 5
    async with jobs.sessions() as session, session.begin():
        ids = list((await session.execute(COMPLETED_JOBS, {"count": many})).scalars())
        await session.execute(
            text("UPDATE jobs SET state = 'lost' WHERE id = ANY(:ids)"), {"ids": ids}
        )
    finding = next(one for one in (await jobs.audit()).findings if one.name == "accounted")

    assert finding.differences == many
    assert len(finding.ids) == IDS_SHOWN_MAX


def test_the_command_says_by_its_exit_code_whether_all_rules_hold(
    new_database_url, servers, monkeypatch
):
    monkeypatch.setenv("DATABASE_URL", new_database_url)
    monkeypatch.setenv("REDIS_URL", servers[1])
    run = CliRunner().invoke
    assert run(command.app, []).exit_code == 0

    with psycopg.connect(new_database_url) as connection:
        for statement in UNPROTECTED:
            connection.execute(statement)
        spoiled = connection.execute(ENDLESS_JOB).fetchone()
    shown = run(command.app, ["--json"])

    assert shown.exit_code == command.DIFFERENCE_FOUND
    assert spoiled is not None
    assert str(spoiled[0]) in shown.stdout
