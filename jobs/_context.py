"""What a handler gets beside its payload.

The one file of the machine that names types of the database and of services; it imports
neither, so a job stays light.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from ._progress import ShowProgress, show_nobody

if TYPE_CHECKING:
    from db.store import Store

    from ._services import Services


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler may touch: its own transaction's store, and facts about this try."""

    job_id: UUID
    try_number: int
    """Counts deliveries from 1, whatever became of the earlier ones."""
    enqueued_at: datetime
    store: "Store"
    services: "Services"
    """What `_services.py` opened when the worker started."""
    progress: ShowProgress = show_nobody
