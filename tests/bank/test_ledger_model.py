"""The ledger against a model of ten lines: the same verdicts, the same balances."""

import asyncio
import uuid
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from db.engine import create_engine, create_sessions
from db.store import Store
from tests.bank.kit import broken_rules, open_account
from tests.examples import THOROUGH

ACCOUNTS = 4


class Model:
    """What the ledger should do, without a database."""

    def __init__(self):
        self.balances = [0] * ACCOUNTS
        self.posted = set()

    def transfer(self, key, payer, payee, amount):
        if payer == payee:
            return "same_account"
        if self.balances[payer] < amount:
            return "insufficient_funds"
        if key in self.posted:
            return "already_posted"
        self.posted.add(key)
        self.balances[payer] -= amount
        self.balances[payee] += amount
        return "posted"


class LedgerMachine(RuleBasedStateMachine):
    url: str

    @initialize()
    def open(self):
        self.loop = asyncio.new_event_loop()
        self.engine = create_engine(self.url, pool_size=2, application_name="model")
        self.sessions = create_sessions(self.engine)
        self.model = Model()
        self.keys = [uuid.uuid4() for _ in range(6)]
        self.accounts = [self.do(open_account(self.sessions)) for _ in range(ACCOUNTS)]

    def do(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    async def post(self, key, payer, payee, amount):
        async with self.sessions() as session, session.begin():
            return await Store(session).ledger.transfer(
                id=key,
                from_account=payer,
                to_account=payee,
                amount=Decimal(amount).scaleb(-2),
                currency="EUR",
            )

    async def world(self):
        async with self.sessions() as session:
            return await Store(session).ledger.world_account("EUR")

    @rule(payee=st.integers(0, ACCOUNTS - 1), amount=st.integers(1, 500))
    def deposit(self, payee, amount):
        world = self.do(self.world())
        assert self.do(self.post(uuid.uuid4(), world, self.accounts[payee], amount)) == "posted"
        self.model.balances[payee] += amount

    @rule(
        key=st.integers(0, 5),
        payer=st.integers(0, ACCOUNTS - 1),
        payee=st.integers(0, ACCOUNTS - 1),
        amount=st.integers(1, 500),
    )
    def transfer(self, key, payer, payee, amount):
        expected = self.model.transfer(key, payer, payee, amount)
        verdict = self.do(
            self.post(self.keys[key], self.accounts[payer], self.accounts[payee], amount)
        )
        assert verdict == expected

    @invariant()
    def balances_agree(self):
        if hasattr(self, "model"):
            found = self.do(self.balances())
            assert [found[account] for account in self.accounts] == self.model.balances

    def teardown(self):
        if hasattr(self, "loop"):
            try:
                assert self.do(self.rules_broken()) == []
            finally:
                self.do(self.engine.dispose())
                self.loop.close()

    async def balances(self):
        async with self.sessions() as session:
            return await Store(session).ledger.balances(self.accounts)

    async def rules_broken(self):
        async with self.sessions() as session:
            return await broken_rules(session)


@pytest.mark.examples
@pytest.mark.timeout(300)
def test_the_ledger_agrees_with_its_model(new_database_url):
    class Machine(LedgerMachine):
        url = new_database_url

    Machine.TestCase.settings = settings(
        max_examples=25 if THOROUGH else 10,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    Machine.TestCase("runTest").runTest()
