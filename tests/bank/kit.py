"""A small bank for tests: users with accounts, money in them, and what must hold of the books."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import text

from db.execution import JobRef
from db.store import Store
from jobs import registry
from worker.execution.delivery import Delivery, with_payload

TRANSFER = registry()["transfer_funds"]

# Each must return no row at all; the names are the ones of the audit.
BOOKS_MUST_HOLD = {
    "every currency sums to zero": """
        SELECT currency FROM accounts GROUP BY currency HAVING sum(balance) <> 0""",
    "a balance is its last entry and the sum of its entries": """
        SELECT a.id FROM accounts a
        LEFT JOIN LATERAL (SELECT sum(amount) AS total, count(*) AS n, max(version) AS last
                           FROM entries WHERE account_id = a.id) e ON true
        LEFT JOIN entries l ON l.account_id = a.id AND l.version = a.version
        WHERE a.balance <> coalesce(e.total, 0) OR a.version <> e.n
           OR a.version <> coalesce(e.last, 0) OR a.balance <> coalesce(l.balance_after, 0)""",
    "every chain of entries is without a gap": """
        SELECT account_id FROM (
          SELECT account_id, version, balance_after - amount AS before,
                 lag(balance_after, 1, 0::bigint) OVER w AS last,
                 row_number() OVER w AS n
          FROM entries WINDOW w AS (PARTITION BY account_id ORDER BY version)) chain
        WHERE before <> last OR version <> n""",
    "a transfer has two entries that cancel out": """
        SELECT t.id FROM transfers t LEFT JOIN entries e ON e.transfer_id = t.id
        GROUP BY t.id HAVING count(*) <> 2 OR sum(e.amount) <> 0 OR max(e.amount) <> t.amount""",
    "no entry ever broke the floor": """
        SELECT e.account_id FROM entries e JOIN accounts a ON a.id = e.account_id
        WHERE e.balance_after < a.floor""",
}


async def broken_rules(session):
    """Return the names of the rules that the books break."""
    return [
        name
        for name, query in BOOKS_MUST_HOLD.items()
        if (await session.execute(text(query))).first() is not None
    ]


async def open_account(sessions, currency="EUR", balance="0"):
    """Return the id of a new user's account with money from the world in it."""
    async with sessions() as session, session.begin():
        store = Store(session)
        name = f"user-{uuid.uuid4().hex[:12]}"
        user_id = await store.users.create(username=name, email=f"{name}@example.com")
        assert isinstance(user_id, uuid.UUID)
        opened = await store.ledger.open_accounts(user_id, [currency])
        assert isinstance(opened, dict)
        account = opened[currency]
        if Decimal(balance) > 0:
            world = await store.ledger.world_account(currency)
            verdict = await store.ledger.transfer(
                id=uuid.uuid4(),
                from_account=world,
                to_account=account,
                amount=Decimal(balance),
                currency=currency,
            )
            assert verdict == "posted"
        return account


async def balance_of(sessions, account):
    async with sessions() as session:
        return await session.scalar(
            text("SELECT balance FROM accounts WHERE id = :id"), {"id": account}
        )


def transfer(payer, payee, amount="0.01"):
    """Return a delivery of one transfer."""
    job = JobRef(uuid.uuid4(), TRANSFER.kind, "null", datetime.now(UTC))
    raw = {
        "from_account": str(payer),
        "to_account": str(payee),
        "amount": amount,
        "currency": "EUR",
    }
    return with_payload(Delivery(job, 1), raw)


async def posted(sessions, ids):
    """Return which of these transfers the books have."""
    async with sessions() as session:
        rows = await session.execute(
            text("SELECT id FROM transfers WHERE id = ANY(:ids)"), {"ids": list(ids)}
        )
        return {row.id for row in rows}
