"""Send a letter: the job of the machine's own tests, and the one left when the bank is deleted.

Its effect is a row in `samples.letters`, which knows no uniqueness: an effect that happened twice
is seen.
"""

from datetime import timedelta
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field

from . import Context, Payload, Rejected, Result, job

INSERT = "INSERT INTO samples.letters (id, address, pages) VALUES ($1, $2, $3)"


class SendLetter(Payload):
    """To which address, how many pages, and about what."""

    kind: ClassVar[str] = "send_letter"

    address: Annotated[str, Field(min_length=1, max_length=40, examples=["12 High Street"])]
    pages: Annotated[int, Field(ge=1, le=100, json_schema_extra={"public": True})] = 1
    reference: UUID | None = None

    def conflict_keys(self) -> tuple[str, ...]:
        """Letters to one address are sent one after the other."""
        return (self.address,)


class LetterSent(Result):
    """The letter that was sent; its id is the job's."""

    letter_id: UUID


@job(SendLetter, timeout=timedelta(seconds=10))
async def send_letter(ctx: Context, request: SendLetter) -> LetterSent | Rejected:
    """Send one letter, or reject an address where nobody lives."""
    if request.address.endswith("nowhere"):
        return Rejected("unknown_address", "nobody lives there")
    await post(ctx, request)
    return LetterSent(letter_id=ctx.job_id)


async def post(ctx: Context, letter: SendLetter) -> None:
    """Take the effect."""
    connection = await ctx.store.session.connection()
    await connection.exec_driver_sql(INSERT, (ctx.job_id, letter.address, letter.pages))
