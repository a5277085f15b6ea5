"""What every job inherits: a new file in `jobs/` is tested by being there."""

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from db.execution import JobRef
from db.store import Store
from db.webhooks import Deliveries
from jobs import Policy, registry
from jobs._services import open_services
from tests.jobs.examples import example_payload
from worker.cli.contract.jobs_page import example_of
from worker.execution.delivery import Delivery, with_payload
from worker.execution.executor import Executor
from worker.execution.outcome import Finished
from worker.monitoring.events import Events

HEAVY = ("sqlalchemy", "asyncpg", "alembic", "worker", "db", "email_validator", "iso4217")

every_job = pytest.mark.parametrize("job", registry().values(), ids=registry().keys())


def test_the_folder_is_the_registry():
    assert "purge_record" in registry()


@every_job
@pytest.mark.slow
def test_importing_a_job_loads_no_heavy_library(job):
    module = job.handler.__module__
    probe = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=30
    )

    assert loaded.stdout.strip() == "[]"


@every_job
def test_a_job_says_in_a_sentence_what_it_does(job):
    assert job.description.endswith(".")
    assert (job.payload.__doc__ or "").strip().endswith(".")


@every_job
def test_a_payload_is_frozen_closed_and_strict(job):
    assert job.payload.model_config["frozen"] is True
    assert job.payload.model_config["extra"] == "forbid"
    assert job.payload.model_config["strict"] is True


@every_job
def test_a_job_has_a_schema_for_its_payload_and_its_result(job):
    assert job.payload.model_json_schema()["additionalProperties"] is False
    assert job.result_type() is not None


@every_job
def test_a_payload_survives_the_way_over_the_wire(job):
    payload = job.payload.from_wire(example_of(job.payload))

    assert job.payload.from_wire(payload.to_wire()) == payload


# The machine's own tables change with every run.
YOUR_TABLES = text("""
    SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables
    WHERE table_schema NOT IN ('pg_catalog', 'information_schema') AND table_name NOT IN
      ('teller_version', 'jobs', 'job_kinds', 'occurrences', 'schedules', 'workers', 'pauses',
       'batches')
    ORDER BY 1
""")


async def effects(sessions):
    """Return how many rows each table has that is not the machine's."""
    async with sessions() as session:
        tables = (await session.execute(YOUR_TABLES)).scalars().all()
        return {
            table: await session.scalar(text(f"SELECT count(*) FROM {table}")) for table in tables
        }


def is_outside(job):
    return job.policy.effects == "outside"


@every_job
async def test_a_job_that_runs_twice_takes_effect_once(job, sessions, tmp_path):
    async with open_services(
        reports_url=tmp_path.as_uri(), endpoints=Deliveries(sessions), private_webhooks=False
    ) as services:
        executor = Executor(*(sessions.kw["bind"], Events()), open_store=Store, services=services)
    record = JobRef(uuid4(), job.kind, "null", datetime.now(UTC) - timedelta(minutes=1))
    delivery = with_payload(Delivery(record, 1), await example_payload(job, sessions))

    first = await executor.run(job, delivery)
    after_first, files = await effects(sessions), sorted(tmp_path.rglob("*.*"))
    second = await executor.run(job, replace(delivery, try_number=2))

    assert isinstance(first, Finished)
    # Where nobody stands for the outside, such a job may find nothing to do.
    assert first.state in {"completed", "cancelled" if is_outside(job) else "completed"}
    assert second == replace(first, replayed=True)
    assert await effects(sessions) == after_first
    assert sorted(tmp_path.rglob("*.*")) == files


@every_job
def test_a_job_ends_by_itself(job):
    assert isinstance(job.policy, Policy)
    assert 0 < job.policy.timeout.total_seconds() < 3600
    assert 0 < job.policy.retry.attempts_max < 100
