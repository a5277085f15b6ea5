"""What teams write first: arq, a session, two SELECT FOR UPDATE, two UPDATEs. No ledger, no fence.

The peer of `tests.bench.transfers`; run by `arq tests.bench.orm_transfer.WorkerSettings`.
"""

import os
import uuid
from typing import Any, ClassVar

from arq.connections import RedisSettings
from sqlalchemy import BigInteger, make_url, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.engine import DRIVER
from worker.execution import serializer as wire

CONCURRENCY = 16


class Base(DeclarativeBase):
    """The peer's own table."""


class Wallet(Base):
    """An account as a tutorial has it."""

    __tablename__ = "bench_wallets"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(BigInteger)


async def transfer(ctx, order):
    """Move money as a tutorial does, but in the order of ids, so that it can run at all."""
    payer, payee = uuid.UUID(order["from_account"]), uuid.UUID(order["to_account"])
    async with ctx["sessions"]() as session, session.begin():
        wallets = {}
        for wallet_id in sorted((payer, payee)):
            query = select(Wallet).where(Wallet.id == wallet_id).with_for_update()
            wallets[wallet_id] = (await session.execute(query)).scalar_one()
        if wallets[payer].balance < 100:
            raise ValueError("insufficient funds")
        wallets[payer].balance -= 100
        wallets[payee].balance += 100


async def start(ctx):
    engine = create_async_engine(
        make_url(os.environ["DATABASE_URL"]).set(drivername=DRIVER),
        pool_size=CONCURRENCY,
        max_overflow=0,
    )
    ctx["engine"], ctx["sessions"] = engine, async_sessionmaker(engine, expire_on_commit=False)


async def stop(ctx):
    await ctx["engine"].dispose()


class WorkerSettings:
    """arq's own loop with its own defaults, at the same concurrency."""

    functions: ClassVar[list[Any]] = [transfer]
    redis_settings = RedisSettings.from_dsn(os.environ.get("REDIS_URL", "redis://localhost"))
    queue_name = "bench:orm"
    on_startup = start
    on_shutdown = stop
    max_jobs = CONCURRENCY
    log_results = False
    job_serializer = wire.serialize
    job_deserializer = wire.deserialize
