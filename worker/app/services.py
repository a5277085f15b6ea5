"""The jobs' services, opened with this process's settings."""

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from db.webhooks import Deliveries
from jobs import _services
from jobs._services import ServiceError
from worker.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from jobs._services import Services
    from worker.settings import Settings


@asynccontextmanager
async def open_services(
    settings: "Settings",
    sessions: "async_sessionmaker[AsyncSession]",
    *,
    reports_url: str | None = None,
) -> "AsyncIterator[Services]":
    """Open the jobs' services for as long as the block lasts.

    Args:
        settings: this process's.
        sessions: for what services keep in the database.
        reports_url: where reports go instead of where the settings say.

    Raises:
        StartupError: a setting is wrong.
    """
    async with AsyncExitStack() as stack:
        opening = _services.open_services(
            reports_url=reports_url or settings.reports_url,
            reports_issuer=settings.reports_issuer,
            reports_logo=settings.reports_logo,
            endpoints=Deliveries(sessions),
            private_webhooks=settings.webhook_private == "allowed",
        )
        try:
            services = await stack.enter_async_context(opening)
        except ServiceError as error:
            raise StartupError(str(error)) from error
        yield services
