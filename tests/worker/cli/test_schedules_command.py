"""`python -m worker schedules`: what an operator sees."""

import asyncio
import re

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from worker.__main__ import app
from worker.errors import TellerError

PREVIEWED = 20
NEXT_RUN = re.compile(r"[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+ +│")
"""A time in a schedule's own zone: whichever of the schedules is next at this hour."""


@pytest.fixture
def run(database_url, redis_url, monkeypatch):
    """Run the command line in this process, outside the test's own event loop."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("COLUMNS", "160")

    async def invoke(*arguments):
        return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))

    return invoke


async def made(sessions):
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "WITH job AS (SELECT id FROM accept_job("
                "'purge_record', '{}', 'purge_record@x', NULL, NULL, NULL)), "
                "mark AS (INSERT INTO schedules VALUES "
                "('purge_record', '17 * * * * UTC', clock_timestamp(), 7), "
                "('gone', '0 0 * * * UTC', clock_timestamp(), 0) "
                "ON CONFLICT DO NOTHING RETURNING name) "
                "SELECT * FROM mark, job"
            )
        )
        await session.execute(
            text(
                "INSERT INTO occurrences (schedule, fire_at, job_id) "
                "SELECT 'purge_record', '2026-11-24 01:17Z', id FROM jobs "
                "ON CONFLICT DO NOTHING"
            )
        )


async def test_a_schedule_that_never_ran_shows_its_next_twenty_runs(run):
    shown = await run("schedules", "purge_record")

    assert shown.exit_code == 0, shown.output
    assert "not begun" in shown.output
    assert "no runs yet" in shown.output
    assert shown.output.count(":17:00 UTC") == PREVIEWED


async def test_past_runs_are_shown_with_what_became_of_them(run, sessions):
    await made(sessions)
    shown = await run("schedules", "purge_record", "--next", "3")

    assert shown.exit_code == 0, shown.output
    assert "2026-11-24 01:17:00" in shown.output
    assert "queued" in shown.output
    assert len(NEXT_RUN.findall(shown.output)) == 3


async def test_each_schedule_is_a_line_with_its_last_run_and_its_next(run, sessions, monkeypatch):
    await made(sessions)
    monkeypatch.setenv("COLUMNS", "80")
    shown = await run("schedules")

    assert shown.exit_code == 0, shown.output
    assert "gone: no job here declares it any more" in shown.output
    lines = [line for line in shown.output.splitlines() if "purge_record" in line]
    assert len(lines) == 1
    assert re.search(r"17 \* \* \* \* UTC +\S.* +\d+m \d+s +\S.* queued$", lines[0].rstrip()), lines


async def test_the_next_runs_of_all_are_shown_where_they_are_asked_for(run):
    shown = await run("schedules", "--next", "3")
    assert len(NEXT_RUN.findall(shown.output)) == 3


async def test_a_schedule_that_does_not_exist_is_an_error_that_names_those_that_do(run):
    shown = await run("schedules", "purge_recor")

    assert isinstance(shown.exception, TellerError)
    there_are = "(did you mean 'purge_record'?); there are: "
    assert there_are in str(shown.exception)
    assert "purge_record" in str(shown.exception).partition(there_are)[2]
