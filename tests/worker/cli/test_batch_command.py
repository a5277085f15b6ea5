"""`worker jobs batch`: one batch as an operator sees it, by its own command line."""

import asyncio
import json
import uuid

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from db.batches import Batches
from db.engine import create_engine, create_sessions
from jobs import Client
from tests.letters import CountBatch, a_letter
from worker.cli._options import UsageError
from worker.cli.jobs import command

pytestmark = pytest.mark.usefixtures("letters")


class BatchCommand:
    """The command line, and the database that it works on."""

    def __init__(self, url):
        self.url = url

    def do(self, unit):
        async def run():
            engine = create_engine(self.url, pool_size=2, application_name="teller-tests")
            try:
                return await unit(create_sessions(engine))
            finally:
                await engine.dispose()

        return asyncio.run(run())

    def open(self, members=3, **options):
        async def open_(sessions):
            letters = [a_letter(pages=1 + n) for n in range(members)]
            return await Client(sessions=sessions).batch(letters, then=CountBatch(), **options)

        return self.do(open_)

    def end(self, batch, state="completed"):
        async def end(sessions):
            async with sessions() as session, session.begin():
                await session.execute(
                    text(
                        "UPDATE jobs SET state = :state, finished_at = clock_timestamp() "
                        "WHERE batch_id = :id"
                    ),
                    {"state": state, "id": batch.id},
                )
                await Batches(session).fire(10)

        self.do(end)

    def run(self, *arguments, **options):
        return CliRunner().invoke(command.app, ["batch", *map(str, arguments)], **options)


@pytest.fixture
def batch_command(new_database_url, servers, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", new_database_url)
    monkeypatch.setenv("REDIS_URL", servers[1])
    return BatchCommand(new_database_url)


def test_it_tells_how_far_a_batch_is(batch_command):
    batch = batch_command.open()
    shown = batch_command.run(batch.id)

    assert shown.exit_code == 0
    assert shown.stdout == f"batch {batch.id} is open: 3 queued\n"


def test_it_tells_of_the_end_and_of_the_job_that_followed(batch_command):
    batch = batch_command.open()
    batch_command.end(batch)
    told = json.loads(batch_command.run(batch.id, "--json").stdout)
    shown = batch_command.run(batch.id, "--wait")

    assert shown.exit_code == 0
    assert (told["state"], told["completed"], told["members"]) == ("fired", 3, 3)
    assert shown.stdout == (
        f"batch {batch.id} is over: 3 completed; then came job {told['then_id']}\n"
    )


def test_one_that_its_dead_hold_is_told_with_what_to_do(batch_command):
    batch = batch_command.open(on_dead="hold")
    batch_command.end(batch, "dead")

    assert "held by its dead jobs: retry them, or cancel the batch: 3 dead" in (
        batch_command.run(batch.id).stdout
    )


def test_the_whole_of_it_is_cancelled_after_a_question(batch_command):
    batch = batch_command.open()

    assert batch_command.run(batch.id, "--cancel", input="n\n").exit_code == 1
    assert "is open: 3 queued" in batch_command.run(batch.id).stdout
    assert "is cancelled: 3 cancelled" in batch_command.run(batch.id, "--cancel", "--yes").stdout
    assert batch_command.run(batch.id, "--wait").exit_code == 1


def test_a_batch_that_is_not_there_is_told(batch_command):
    missing = uuid.uuid4()

    failure = batch_command.run(missing).exception

    assert isinstance(failure, UsageError)
    assert str(failure) == f"there is no batch {missing}"


def test_waiting_for_what_is_cancelled_at_once_is_refused(batch_command):
    failure = batch_command.run(uuid.uuid4(), "--wait", "--cancel").exception

    assert isinstance(failure, UsageError)
