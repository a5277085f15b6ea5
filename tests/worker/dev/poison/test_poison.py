"""Each deed does what its name says: the job that does it ends as the table has it."""

import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from db.execution import JobRef
from jobs._payload import payload_json
from tests.worker.execution.kit import recording_executor
from worker.dev.poison import DEEDS, JOBS, poison
from worker.execution.delivery import Delivery
from worker.execution.outcome import Later

ROOT = Path(__file__).parents[4]
SURVIVED = [name for name, deed in DEEDS.items() if deed.exit_code is None]
DEADLY = [name for name, deed in DEEDS.items() if deed.exit_code is not None]


def delivery_of(name):
    payload = poison(name, 1)
    job = JobRef(uuid.uuid4(), payload.kind, payload_json(payload), datetime.now(UTC))
    return Delivery(job, 1)


async def ended(sessions, delivery):
    """Deliver a job until it is final, and return its state and its last error's name."""
    executor = recording_executor(sessions)
    for _ in range(4):
        if not isinstance(await executor.run(delivery, JOBS[delivery.job.kind]), Later):
            break
    query = text("SELECT state, errors->-1->>'error' AS error FROM jobs WHERE id = :id")
    async with sessions() as session:
        return (await session.execute(query, {"id": delivery.job.id})).one()


@pytest.mark.parametrize("name", SURVIVED)
async def test_a_deed_ends_as_the_table_says(sessions, name):
    row = await ended(sessions, delivery_of(name))

    assert row.state == DEEDS[name].state
    assert row.state == "completed" or row.error == DEEDS[name].error


@pytest.mark.slow
@pytest.mark.parametrize("name", DEADLY)
def test_a_deadly_deed_ends_the_process_with_its_own_code(name):
    code = f"""
import asyncio, resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from worker.dev.poison import DEEDS
asyncio.run(DEEDS[{name!r}].do(None))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True)

    assert (done.returncode if done.returncode > 0 else 128 - done.returncode) == (
        DEEDS[name].exit_code
    )
