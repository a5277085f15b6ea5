"""A shop that takes orders and has Teller move the money: one transaction for both.

It shares Teller's database, has a table of its own, and knows nothing of the worker.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, Request, Response, status
from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis
from sqlalchemy import make_url
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from teller_jobs import (
    Client,
    InvalidPayloadError,
    KeyConflictError,
    Rejected,
    Result,
    parse_payload,
)

FINAL = {"completed", "rejected", "dead", "cancelled"}


class Base(DeclarativeBase):
    """The shop's own tables."""


class Order(Base):
    """What somebody bought, and the job that moves the money for it."""

    __tablename__ = "shop_orders"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    buyer: Mapped[UUID]
    price: Mapped[str]
    currency: Mapped[str]
    job_id: Mapped[UUID]


class NewOrder(BaseModel):
    """What a buyer sends."""

    model_config = ConfigDict(extra="forbid")

    buyer: UUID
    """The buyer's account."""
    price: str
    currency: str


class OrderStatus(BaseModel):
    """What a buyer may know."""

    order: UUID
    job: UUID
    status: str
    answer: dict[str, Any] | None = None


@dataclass(frozen=True)
class Shop:
    """What the endpoints share."""

    teller: Client
    sessions: async_sessionmaker[AsyncSession]
    account: UUID


def create_app() -> FastAPI:
    """Return the shop, from DATABASE_URL, REDIS_URL and SHOP_ACCOUNT."""
    app = FastAPI(title="Shop", lifespan=_lifespan)
    app.put("/orders/{order_id}", status_code=status.HTTP_202_ACCEPTED)(put_order)
    app.get("/orders/{order_id}")(get_order)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    redis = Redis.from_url(os.environ["REDIS_URL"])
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with Client(redis, sessions=sessions) as client:
        app.state.shop = Shop(client, sessions, UUID(os.environ["SHOP_ACCOUNT"]))
        yield
    await redis.aclose()
    await engine.dispose()


def _shop(request: Request) -> Shop:
    return request.app.state.shop


async def put_order(
    order_id: UUID, order: NewOrder, response: Response, shop: Annotated[Shop, Depends(_shop)]
) -> OrderStatus:
    """Take an order: 202 with the job's id. Sending it again is safe; changing it is a conflict."""
    try:
        payment = parse_payload(
            "transfer_funds",
            {
                "from_account": str(order.buyer),
                "to_account": str(shop.account),
                "amount": order.price,
                "currency": order.currency,
            },
        )
    except InvalidPayloadError as error:
        raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, str(error)) from None
    try:
        # Both or neither: an order without a payment, or a payment without an order, cannot be.
        async with shop.sessions.begin() as session:
            job = await shop.teller.enqueue(payment, session=session, key=f"order-{order_id}")
            await session.execute(
                insert(Order)
                .values(id=order_id, job_id=job.id, **order.model_dump())
                .on_conflict_do_nothing()
            )
    except KeyConflictError as error:
        raise HTTPException(status.HTTP_409_CONFLICT, str(error)) from None
    response.headers["Location"] = f"/orders/{order_id}"
    return OrderStatus(order=order_id, job=job.id, status="queued" if job.created else "known")


async def get_order(order_id: UUID, shop: Annotated[Shop, Depends(_shop)]) -> OrderStatus:
    """Return where an order is, and once its payment is decided, the answer."""
    async with shop.sessions() as session:
        order = await session.get(Order, order_id)
    if order is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "no such order")
    job = shop.teller.handle(order.job_id)
    state = await job.status()
    answer = await job.result() if state in FINAL - {"dead"} else None
    match answer:
        case Rejected(code=code):
            shown = {"rejected": code}
        case Result():
            shown = answer.model_dump(mode="json")
        case _:
            shown = None
    return OrderStatus(order=order.id, job=job.id, status=state, answer=shown)
