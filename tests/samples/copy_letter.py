"""Copy a letter: a job of which the last version wins that comes before it has begun."""

from datetime import timedelta
from typing import ClassVar

from . import Context, Payload, job
from .send_letter import SendLetter, post


class CopyLetter(Payload):
    """To which address, and how many pages it has by now."""

    kind: ClassVar[str] = "copy_letter"

    address: str
    pages: int = 1


@job(CopyLetter, unique_for=timedelta(hours=1), replace=True)
async def copy_letter(ctx: Context, request: CopyLetter) -> None:
    """Send the copy."""
    await post(ctx, SendLetter(address=request.address, pages=request.pages))
