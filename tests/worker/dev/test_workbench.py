"""The workbench: jobs run there as a worker runs them, and time passes when a test says so."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from jobs import registry
from tests.letters import TABLE, a_letter
from worker.dev import workbench as module
from worker.dev.pytest_plugin import (  # noqa: F401 - fixtures
    teller_database_url,
    teller_databases,
    teller_services,
    workbench,
)
from worker.dev.workbench import StillDueError

pytestmark = pytest.mark.usefixtures("letters")


@pytest.fixture
async def bench(workbench):  # noqa: F811 - a fixture
    async with workbench.engine.begin() as connection:
        await connection.exec_driver_sql("CREATE SCHEMA samples")
        await connection.exec_driver_sql(TABLE)
        await connection.exec_driver_sql(
            "INSERT INTO job_kinds (kind, payload_schema) VALUES ('send_letter', '{}') "
            "ON CONFLICT DO NOTHING"
        )
    return workbench


async def test_what_is_due_runs_to_its_end_and_its_effect_is_there(bench):
    sent = await bench.client.enqueue(a_letter())

    [ran] = await bench.run_due()

    assert (ran.id, ran.state) == (sent.id, "completed")
    async with bench.sessions() as session:
        assert await session.scalar(text("SELECT count(*) FROM samples.letters")) == 1


async def test_a_failure_waits_for_its_next_try_until_time_passes(bench, monkeypatch):
    async def fail(_ctx, _payload):
        raise OSError("no route")

    failing = {"send_letter": replace(registry()["send_letter"], handler=fail)}
    monkeypatch.setattr(module, "registry", lambda: failing)
    broken = await bench.client.enqueue(a_letter())

    [first] = await bench.run_due()
    assert (first.state, first.attempts) == ("queued", 1)
    assert await bench.run_due() == []

    await bench.advance(timedelta(hours=1))
    [second] = await bench.run_due()
    assert second.attempts == 2
    assert (await bench.job(broken.id)).errors[-1]["message"] == "no route"


async def test_a_job_of_tomorrow_runs_tomorrow(bench):
    await bench.client.enqueue(a_letter(), delay=timedelta(days=1))

    assert await bench.run_due() == []
    await bench.advance(timedelta(days=1))
    assert [ran.state for ran in await bench.run_due()] == ["completed"]


async def test_jobs_without_end_are_told_instead_of_run_for_ever(bench, monkeypatch):
    monkeypatch.setattr(module, "RUNS_MAX", 1)
    await bench.client.enqueue(a_letter())
    await bench.client.enqueue(a_letter(address="13 High Street"))

    with pytest.raises(StillDueError, match="still due after 1 runs"):
        await bench.run_due()


async def test_an_unknown_job_is_named(bench):
    with pytest.raises(LookupError, match="there is no job"):
        await bench.job("00000000-0000-0000-0000-000000000000")
