"""The moment of the commit: what was not committed is never reported as done."""

import pytest
from sqlalchemy import text

from db.transaction import JobTransaction
from tests.worker.execution.kit import letter, recording_executor

END_IT = text("SELECT pg_terminate_backend(:pid)")


@pytest.fixture
def before_commit(monkeypatch):
    """Return a function: what it is given is awaited, with the session, before each commit."""

    def set_hook(hook):
        commit = JobTransaction.commit

        async def commit_after_hook(self):
            await hook(self.session)
            await commit(self)

        monkeypatch.setattr(JobTransaction, "commit", commit_after_hook)

    return set_hook


async def test_a_connection_that_is_lost_just_before_the_commit_makes_the_job_run_again(
    sessions, before_commit
):
    executor = recording_executor(sessions)
    delivery = letter()
    ended = []

    async def end_the_first(session):
        if not ended:
            ended.append(await session.scalar(text("SELECT pg_backend_pid()")))
            async with sessions() as executioner:
                await executioner.execute(END_IT, {"pid": ended[0]})

    before_commit(end_the_first)

    outcome = await executor.run(delivery)

    assert outcome.state == "completed"
    assert not outcome.replayed
    assert await executor.sent([delivery.job.id]) == [delivery.job.id]
    assert executor.names() == ["job.run_again", "job.finished"]


async def test_what_a_handler_wrote_and_its_outcome_are_one_transaction(sessions, before_commit):
    """Neither is there while the other is not, whichever one looks for."""
    delivery = letter()
    seen = []

    executor = recording_executor(sessions)

    async def look(_session):
        ids = [delivery.job.id]
        seen.append((await executor.sent(ids), await executor.states(ids)))

    before_commit(look)
    await executor.run(delivery)

    assert seen == [([], {})]
    assert await executor.sent([delivery.job.id]) == [delivery.job.id]
    assert await executor.states([delivery.job.id]) == {delivery.job.id: "completed"}
