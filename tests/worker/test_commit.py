"""The moment of the commit: what was not committed is never told to be done."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.bank import balance_of, open_account
from tests.worker.kit import till, transfer

END_IT = text("SELECT pg_terminate_backend(:pid)")


def sessions_whose_first_commit_fails(engine, sessions):
    """Return a factory: the first session that commits loses its connection just before.

    The last thing before COMMIT is that the session writes what its objects hold.
    """
    failed = []

    class Unlucky(AsyncSession):
        async def flush(self, objects=None):
            await super().flush(objects)
            if not failed:
                failed.append(await self.scalar(text("SELECT pg_backend_pid()")))
                async with sessions() as executioner:
                    await executioner.execute(END_IT, {"pid": failed[0]})

    return async_sessionmaker(engine, class_=Unlucky, expire_on_commit=False, autoflush=False)


async def test_a_connection_that_is_lost_just_before_the_commit_makes_the_job_run_again(
    engine, sessions
):
    payer = await open_account(sessions, balance="1.00")
    payee = await open_account(sessions)
    one = till(sessions_whose_first_commit_fails(engine, sessions))
    delivery = transfer(payer, payee)

    outcome = await one.run(delivery)

    assert outcome.state == "completed"
    assert not outcome.replayed
    assert await one.posted([delivery.job.id]) == {delivery.job.id}
    assert await balance_of(sessions, payee) == 1
    assert [name for name, _ in one.told] == ["job.run_again", "job.finished"]


async def test_what_a_handler_wrote_and_its_outcome_are_one_transaction(engine, sessions):
    """Neither is there while the other is not, whichever one looks for."""
    payer = await open_account(sessions, balance="1.00")
    payee = await open_account(sessions)
    delivery = transfer(payer, payee)
    seen = []

    class Watched(AsyncSession):
        async def flush(self, objects=None):
            await super().flush(objects)
            seen.append((await one.posted([delivery.job.id]), await one.states([delivery.job.id])))

    one = till(async_sessionmaker(engine, class_=Watched, expire_on_commit=False, autoflush=False))
    await one.run(delivery)

    assert seen == [(set(), {})]
    assert await one.posted([delivery.job.id]) == {delivery.job.id}
    assert await one.states([delivery.job.id]) == {delivery.job.id: "completed"}
