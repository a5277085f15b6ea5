"""What the job that follows a batch is told of it."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

OnDead = Literal["go_on", "hold"]
"""Whether a dead member counts as over, or holds its batch until it was retried with success."""


class BatchEnd(BaseModel):
    """A batch that is over: its id, and its members by the state in which they ended.

    A payload with a field `batch: BatchEnd | None = None` gets it when it follows a batch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: UUID
    completed: int = 0
    rejected: int = 0
    dead: int = 0
    cancelled: int = 0

    @property
    def members(self) -> int:
        """How many there were."""
        return self.completed + self.rejected + self.dead + self.cancelled
