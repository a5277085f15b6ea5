"""Facts about this machine and this process's settings."""

import platform
import resource
import sys
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING

from db.engine import create_sessions, open_engine
from jobs import registry
from worker.app.services import open_services
from worker.errors import StartupError

if TYPE_CHECKING:
    from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What a worker started here would have."""

    python: str
    event_loop: str
    open_files_max: int
    drain_grace: timedelta
    timeouts: dict[str, timedelta]
    """By kind of job."""
    reports_trouble: str | None
    """Why a service of the jobs cannot be opened."""


async def inspect_machine(settings: "Settings") -> MachineFacts:
    """Return what a worker would have that is started here with these settings."""
    engines = open_engine(str(settings.database_url), pool_size=1, application_name="teller-doctor")
    try:
        async with engines as engine, open_services(settings, create_sessions(engine)):
            trouble = None
    except StartupError as error:
        trouble = str(error)
    return MachineFacts(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        event_loop="uvloop" if find_spec("uvloop") and sys.platform != "win32" else "asyncio",
        open_files_max=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        drain_grace=timedelta(seconds=settings.drain_grace_s),
        timeouts={kind: job.policy.timeout for kind, job in registry().items()},
        reports_trouble=trouble,
    )
