"""What your jobs need besides the database: yours to fill, made once in each worker process.

A handler finds it as `ctx.services`, typed. Add a field for a client of your own, and open it in
`open_services`; what a block there leaves open is closed when the worker stops.
"""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._reports import Reports
    from ._webhooks import Endpoints, Webhooks


class ServiceError(Exception):
    """A service cannot be made from these settings; the message says what would do."""


@dataclass(frozen=True, slots=True)
class Services:
    """One field per service."""

    reports: "Reports"
    webhooks: "Webhooks"


@asynccontextmanager
async def open_services(
    *,
    reports_url: str,
    reports_issuer: str = "",
    reports_logo: str = "",
    endpoints: "Endpoints",
    private_webhooks: bool,
) -> AsyncIterator[Services]:
    """Open the services for as long as the block lasts.

    Args:
        reports_url: where reports are published.
        reports_issuer: who makes them: a name and the lines of an address, divided by `|`.
        reports_logo: the path of the issuer's logo.
        endpoints: who hears of the ends of jobs.
        private_webhooks: whether an endpoint may be in a private network.

    Raises:
        ServiceError: a setting is wrong.
    """
    # Imported here: a client loads this file as well, and opens no services.
    from ._reports import DestinationError, Issuer, IssuerError, Reports
    from ._webhooks import Webhooks

    try:
        reports = Reports(reports_url, Issuer.from_settings(reports_issuer, reports_logo))
    except (DestinationError, IssuerError) as error:
        raise ServiceError(str(error)) from error
    webhooks = Webhooks(endpoints, private_allowed=private_webhooks)
    try:
        yield Services(reports=reports, webhooks=webhooks)
    finally:
        await webhooks.aclose()


@asynccontextmanager
async def open_dry_services() -> AsyncIterator[Services]:
    """Open services whose effects are undone at the end of the block, for a dry run."""
    from ._webhooks import NO_ENDPOINTS

    with tempfile.TemporaryDirectory(prefix="teller-dry-run-") as scratch:
        async with open_services(
            reports_url=Path(scratch).as_uri(), endpoints=NO_ENDPOINTS, private_webhooks=False
        ) as services:
            yield services
