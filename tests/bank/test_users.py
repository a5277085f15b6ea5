import asyncio
import uuid

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import InvalidRequestError, StatementError

from db.bank.models import User
from db.store import Store


async def create(sessions, username, email=None):
    async with sessions() as session, session.begin():
        return await Store(session).users.create(
            username=username, email=email or f"{uuid.uuid4().hex}@example.com"
        )


async def test_of_many_who_want_a_name_at_once_one_gets_it(sessions):
    name = uuid.uuid4().hex

    answers = await asyncio.gather(*(create(sessions, name) for _ in range(8)))

    assert sum(isinstance(answer, uuid.UUID) for answer in answers) == 1
    assert answers.count("username_taken") == 7


async def test_a_user_is_read_with_the_accounts_in_one_go(sessions):
    user_id = await create(sessions, uuid.uuid4().hex)
    async with sessions() as session, session.begin():
        opened = await Store(session).ledger.open_accounts(user_id, ["USD", "EUR", "USD"])

    async with sessions() as session:
        user = await Store(session).users.get(user_id)

    assert user is not None
    assert {account.currency: account.id for account in user.accounts} == opened


async def test_a_relationship_never_loads_by_itself(sessions):
    user_id = await create(sessions, uuid.uuid4().hex)
    async with sessions() as session:
        user = await session.get(User, user_id)
        assert "accounts" in inspect(user).unloaded
        with pytest.raises((InvalidRequestError, StatementError), match="raise"):
            _ = user.accounts
