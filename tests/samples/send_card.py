"""Send a card: a job whose payload is personal, so that only its id goes through the queue."""

from datetime import timedelta
from typing import Annotated, ClassVar

from pydantic import Field

from . import Context, Payload, job


class SendCard(Payload):
    """To whom."""

    kind: ClassVar[str] = "send_card"

    name: Annotated[str, Field(max_length=40, json_schema_extra={"personal": True})]


@job(SendCard, timeout=timedelta(seconds=10))
async def send_card(ctx: Context, request: SendCard) -> None:
    """Send nothing: its tests are about the way to here."""
    del ctx, request
